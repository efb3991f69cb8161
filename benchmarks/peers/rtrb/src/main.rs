//! Hand-over of 32-byte items between two pinned threads through rtrb, in chunks of 1,024 and singly, every item's
//! content and order checked. Same shape, capacity and item as `core/tests/bench_ring.c`; one JSON object a line.
//!
//! Usage: bitactor-peer-rtrb [seconds per figure, default 0.5]

use rtrb::RingBuffer;
use std::time::Instant;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Item {
    sequence: u64,
    check: u64,
    source: u64,
    stamp: u64,
}

fn mix(s: u64) -> u64 {
    s.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn make(sequence: u64) -> Item {
    Item { sequence, check: mix(sequence), source: 0, stamp: 0 }
}

fn wrong(item: &Item, sequence: u64) -> u64 {
    (item.sequence ^ sequence) | (item.check ^ mix(sequence))
}

/// Keeps the calling thread on one processor, where there are two or more.
fn pin(cpu: usize) {
    // SAFETY: the set is plain memory of the size that is passed; the calls touch only this thread.
    unsafe {
        if libc::sysconf(libc::_SC_NPROCESSORS_ONLN) < 2 {
            return;
        }
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set);
    }
}

fn run_batch(batch: usize, capacity: usize, items: u64) -> f64 {
    let (mut producer, mut consumer) = RingBuffer::<Item>::new(capacity);
    let begin = Instant::now();
    let thread = std::thread::spawn(move || {
        pin(1);
        let mut s = 0;
        while s < items {
            let n = batch.min((items - s) as usize);
            let Ok(chunk) = producer.write_chunk_uninit(n) else {
                std::hint::spin_loop();
                continue;
            };
            chunk.fill_from_iter((s..s + n as u64).map(make));
            s += n as u64;
        }
    });
    let mut s = 0;
    while s < items {
        let n = batch.min(consumer.slots());
        if n == 0 {
            std::hint::spin_loop();
            continue;
        }
        let chunk = consumer.read_chunk(n).expect("as many as there are");
        let (first, second) = chunk.as_slices();
        let mut bad = 0;
        for item in first.iter().chain(second) {
            bad |= wrong(item, s);
            s += 1;
        }
        assert!(bad == 0, "content before {s}");
        chunk.commit_all();
    }
    let seconds = begin.elapsed().as_secs_f64();
    thread.join().expect("the producer ends well");
    seconds
}

fn run_single(_batch: usize, capacity: usize, items: u64) -> f64 {
    let (mut producer, mut consumer) = RingBuffer::<Item>::new(capacity);
    let begin = Instant::now();
    let thread = std::thread::spawn(move || {
        pin(1);
        for s in 0..items {
            while producer.push(make(s)).is_err() {
                std::hint::spin_loop();
            }
        }
    });
    for s in 0..items {
        let item = loop {
            if let Ok(item) = consumer.pop() {
                break item;
            }
            std::hint::spin_loop();
        };
        assert!(wrong(&item, s) == 0, "content at {s}");
    }
    let seconds = begin.elapsed().as_secs_f64();
    thread.join().expect("the producer ends well");
    seconds
}

/// A short run says how many items fill the time, then one run is timed.
fn hand_over(name: &str, run: fn(usize, usize, u64) -> f64, batch: usize, capacity: usize, seconds: f64) {
    let mut items = 1u64 << 16;
    let mut took = run(batch, capacity, items);
    while took < 0.02 {
        items *= 4;
        took = run(batch, capacity, items);
    }
    items = (items as f64 * seconds / took) as u64 + 1;
    took = run(batch, capacity, items);
    println!(
        "{{\"figure\": \"{name}\", \"value\": {:.1}, \"unit\": \"M/s\", \"batch\": {batch}, \"capacity\": {capacity}, \
         \"items\": {items}, \"seconds\": {took:.4}}}",
        items as f64 / took / 1e6
    );
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(0.5, |text| text.parse().expect("seconds"));
    pin(0);
    hand_over("batch", run_batch, 1024, 8192, seconds);
    hand_over("single", run_single, 1, 8192, seconds);
}
