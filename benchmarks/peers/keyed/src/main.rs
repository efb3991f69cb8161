//! Keyed VWAP (count, notional, volume, high) by a plain loop over hashbrown's map and by timely dataflow; the answer
//! is compared with arrays indexed by key, to the last bit. One JSON object a line, as the other measures print.
//!
//! Usage: bitactor-peer-keyed hashbrown|timely [workers] [keys] [events] [passes]
//!
//! All events are in memory, as columns, before the clock starts; each key was met once. A pass of timely ends when the
//! probe says that all of it is handled; its workers share the events evenly and exchange them by key, in vectors of
//! 1,024, which is what its own buffers hold.

use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::Instant;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Input, Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

type Event = (u64, f64, u32);

#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct State {
    notional: f64,
    high: f64,
    count: u32,
    volume: u32,
}

impl State {
    fn add(&mut self, value: f64, size: u32) {
        self.count += 1;
        self.notional += value * f64::from(size);
        self.volume += size;
        self.high = self.high.max(value);
    }
}

struct Columns {
    key: Vec<u64>,
    value: Vec<f64>,
    size: Vec<u32>,
}

impl Columns {
    /// Keys 1 to `keys`, uniformly; prices in quarters and small sizes, so that every sum is exact.
    fn random(keys: u64, events: usize) -> Columns {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut all = Columns { key: Vec::new(), value: Vec::new(), size: Vec::new() };
        for _ in 0..events {
            all.key.push(1 + ((u128::from(next()) * u128::from(keys)) >> 64) as u64);
            all.value.push((4 + next() % 4092) as f64 / 4.0);
            all.size.push(1 + (next() % 999) as u32);
        }
        all
    }

    /// Each key once.
    fn growth(keys: u64) -> Columns {
        let n = keys as usize;
        Columns { key: (1..=keys).collect(), value: vec![1.0; n], size: vec![1; n] }
    }

    fn at(&self, i: usize) -> Event {
        (self.key[i], self.value[i], self.size[i])
    }
}

fn expected(keys: u64, growth: &Columns, events: &Columns, passes: usize) -> Vec<State> {
    let mut states = vec![State::default(); keys as usize + 1];
    for (columns, times) in [(growth, 1), (events, passes)] {
        for _ in 0..times {
            for i in 0..columns.key.len() {
                states[columns.key[i] as usize].add(columns.value[i], columns.size[i]);
            }
        }
    }
    states
}

fn hashbrown(growth: &Columns, events: &Columns, passes: usize) -> (Vec<f64>, HashMap<u64, State>) {
    let mut states: HashMap<u64, State> = HashMap::with_capacity(growth.key.len());
    let mut run = |columns: &Columns| {
        let begin = Instant::now();
        for i in 0..columns.key.len() {
            states.entry(columns.key[i]).or_default().add(columns.value[i], columns.size[i]);
        }
        begin.elapsed().as_secs_f64()
    };
    run(growth);
    let seconds = (0..passes).map(|_| run(events)).collect();
    (seconds, states)
}

fn timely(workers: usize, growth: Columns, events: Columns, passes: usize) -> (Vec<f64>, HashMap<u64, State>) {
    let (growth, events) = (Arc::new(growth), Arc::new(events));
    let together = Arc::new(Barrier::new(workers));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let states = Rc::new(RefCell::new(HashMap::<u64, State>::new()));
        let (mut input, probe) = (InputHandle::new(), ProbeHandle::new());
        let held = Rc::clone(&states);
        worker.dataflow::<u64, _, _>(|scope| {
            scope
                .input_from(&mut input)
                .unary(Exchange::new(|event: &Event| event.0), "vwap", move |_capability, _info| {
                    move |input, output| {
                        let mut states = held.borrow_mut();
                        input.for_each_stamp(|stamp, data| {
                            let _session = output.session(&stamp);
                            for batch in data {
                                for (key, value, size) in batch.drain(..) {
                                    states.entry(key).or_default().add(value, size);
                                }
                            }
                        });
                    }
                })
                .container::<Vec<u64>>()
                .probe_with(&probe);
        });
        let (index, peers) = (worker.index(), worker.peers());
        let mut seconds = Vec::new();
        let mut buffer: Vec<Event> = Vec::with_capacity(1024);
        for pass in 0..=passes {
            let columns = if pass == 0 { &growth } else { &events };
            let n = columns.key.len();
            let (from, until) = (n * index / peers, n * (index + 1) / peers);
            together.wait();
            let begin = Instant::now();
            for (number, start) in (from..until).step_by(1024).enumerate() {
                buffer.extend((start..until.min(start + 1024)).map(|i| columns.at(i)));
                input.send_batch(&mut buffer);
                buffer.clear();
                if number % 8 == 7 {
                    worker.step();
                }
            }
            input.advance_to(pass as u64 + 1);
            while probe.less_than(input.time()) {
                worker.step();
            }
            together.wait();
            seconds.push(begin.elapsed().as_secs_f64());
        }
        let held = states.borrow().clone();
        (seconds, held)
    })
    .expect("timely starts");
    let mut all = HashMap::new();
    let mut seconds = Vec::new();
    for result in guards.join() {
        let (own, states) = result.expect("a worker ends well");
        if seconds.is_empty() {
            seconds = own;
        }
        all.extend(states);
    }
    seconds.remove(0); /* growth */
    (seconds, all)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).map_or(default, |text| text.parse().expect("a number"));
    let by = arguments.first().expect("hashbrown or timely").as_str();
    let (workers, keys, events, passes) = (number(1, 1), number(2, 1_000) as u64, number(3, 8_000_000), number(4, 5));
    let (growth, signals) = (Columns::growth(keys), Columns::random(keys, events));
    let want = expected(keys, &growth, &signals, passes);
    let (mut seconds, states) = match by {
        "hashbrown" => hashbrown(&growth, &signals, passes),
        "timely" => timely(workers, growth, signals, passes),
        other => panic!("{other} is neither hashbrown nor timely"),
    };
    assert_eq!(states.len() as u64, keys, "as many keys as there are");
    for (key, state) in &states {
        assert_eq!(*state, want[*key as usize], "the totals of key {key}");
    }
    seconds.sort_by(f64::total_cmp);
    let rate = events as f64 / seconds[passes / 2] / 1e6;
    println!("{{\"figure\": \"\", \"value\": {rate:.2}, \"unit\": \"M/s\", \"workers\": {workers}, \"exact\": true}}");
}
