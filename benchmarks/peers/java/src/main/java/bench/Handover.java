package bench;

import com.lmax.disruptor.BatchEventProcessor;
import com.lmax.disruptor.BatchEventProcessorBuilder;
import com.lmax.disruptor.BusySpinWaitStrategy;
import com.lmax.disruptor.EventHandler;
import com.lmax.disruptor.RingBuffer;
import java.nio.ByteBuffer;
import org.agrona.BufferUtil;
import org.agrona.concurrent.UnsafeBuffer;
import org.agrona.concurrent.ringbuffer.OneToOneRingBuffer;
import org.agrona.concurrent.ringbuffer.RingBufferDescriptor;

/**
 * Hand-over of 32-byte items between two threads, every item's content and order checked.
 *
 * <p>Usage: Handover agrona|disruptor BATCH ITEMS. The Disruptor has 8,192 preallocated events of four longs; a batch is
 * claimed and published at once. Agrona's ring is of bytes: 512 KiB, so that 8,192 items with their headers fit; a
 * batch is one claimed message. The run is made twice, and the second is reported.
 */
public final class Handover {
  private static final int CAPACITY = 8192;
  private static final int ITEM_BYTES = 32;

  private Handover() {}

  static long mix(final long number) {
    return number * 0x9e3779b97f4a7c15L;
  }

  /** One event of the Disruptor's ring. */
  static final class Event {
    long sequence;
    long check;
    long source;
    long stamp;
  }

  private static void fail(final long at) {
    throw new AssertionError("content at " + at);
  }

  private static double disruptor(final int batch, final long items) throws InterruptedException {
    final RingBuffer<Event> ring = RingBuffer.createSingleProducer(Event::new, CAPACITY, new BusySpinWaitStrategy());
    final BatchEventProcessor<Event>[] itself = new BatchEventProcessor[1];
    final EventHandler<Event> handler =
        (event, sequence, endOfBatch) -> {
          if (event.sequence != sequence || event.check != mix(sequence)) {
            fail(sequence);
          }
          if (sequence == items - 1) {
            itself[0].halt();
          }
        };
    itself[0] = new BatchEventProcessorBuilder().build(ring, ring.newBarrier(), handler);
    ring.addGatingSequences(itself[0].getSequence());
    final Thread consumer = new Thread(itself[0]);
    final long begin = System.nanoTime();
    consumer.start();
    for (long s = 0; s < items; ) {
      final int n = (int) Math.min(batch, items - s);
      final long high = ring.next(n);
      for (long at = high - n + 1; at <= high; at++) {
        final Event event = ring.get(at);
        event.sequence = s;
        event.check = mix(s);
        event.source = 0;
        event.stamp = 0;
        s++;
      }
      ring.publish(high - n + 1, high);
    }
    consumer.join();
    return (System.nanoTime() - begin) * 1e-9;
  }

  private static double agrona(final int batch, final long items) throws InterruptedException {
    final ByteBuffer memory =
        BufferUtil.allocateDirectAligned(2 * CAPACITY * ITEM_BYTES + RingBufferDescriptor.TRAILER_LENGTH, 128);
    final OneToOneRingBuffer ring = new OneToOneRingBuffer(new UnsafeBuffer(memory));
    final long[] next = {0};
    final Thread consumer =
        new Thread(
            () -> {
              while (next[0] < items) {
                final int read =
                    ring.read(
                        (type, buffer, index, length) -> {
                          for (int at = index; at < index + length; at += ITEM_BYTES) {
                            final long s = next[0]++;
                            if (buffer.getLong(at) != s || buffer.getLong(at + 8) != mix(s)) {
                              fail(s);
                            }
                          }
                        });
                if (read == 0) {
                  Thread.onSpinWait();
                }
              }
            });
    final long begin = System.nanoTime();
    consumer.start();
    for (long s = 0; s < items; ) {
      final int n = (int) Math.min(batch, items - s);
      final int index = ring.tryClaim(1, n * ITEM_BYTES);
      if (index < 0) {
        Thread.onSpinWait();
        continue;
      }
      for (int i = 0; i < n; i++, s++) {
        final int at = index + i * ITEM_BYTES;
        ring.buffer().putLong(at, s);
        ring.buffer().putLong(at + 8, mix(s));
        ring.buffer().putLong(at + 16, 0);
        ring.buffer().putLong(at + 24, 0);
      }
      ring.commit(index);
    }
    consumer.join();
    return (System.nanoTime() - begin) * 1e-9;
  }

  /** Runs and prints one JSON line. */
  public static void main(final String[] arguments) throws InterruptedException {
    final int batch = Integer.parseInt(arguments[1]);
    final long items = Long.parseLong(arguments[2]);
    double seconds = 0;
    for (int round = 0; round < 2; round++) { // the first one compiles
      seconds = arguments[0].equals("agrona") ? agrona(batch, items) : disruptor(batch, items);
    }
    System.out.printf(
        "{\"figure\": \"\", \"value\": %.2f, \"unit\": \"M/s\", \"batch\": %d, \"exact\": true}%n",
        items / seconds / 1e6, batch);
  }
}
