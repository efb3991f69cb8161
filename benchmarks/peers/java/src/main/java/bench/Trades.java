package bench;

import java.util.Arrays;

/** The common task's input, as columns made before the clock starts, and its exact answer. */
final class Trades {
  final long[] key;
  final double[] value;
  final int[] size;

  /** What is kept of a key. */
  static final class State implements java.io.Serializable {
    double notional;
    double high;
    int count;
    int volume;

    void add(final double value, final int size) {
      count++;
      notional += value * size;
      volume += size;
      if (value > high) {
        high = value;
      }
    }

    boolean same(final State other) {
      return count == other.count && volume == other.volume && notional == other.notional && high == other.high;
    }
  }

  private Trades(final int events) {
    key = new long[events];
    value = new double[events];
    size = new int[events];
  }

  /** Keys 1 to keys, uniformly; prices in quarters and small sizes, so that every sum is exact. */
  static Trades random(final int keys, final int events) {
    final Trades all = new Trades(events);
    final java.util.SplittableRandom random = new java.util.SplittableRandom(1);
    for (int i = 0; i < events; i++) {
      all.key[i] = 1 + random.nextInt(keys);
      all.value[i] = (4 + random.nextInt(4092)) / 4.0;
      all.size[i] = 1 + random.nextInt(999);
    }
    return all;
  }

  /** Each key once. */
  static Trades growth(final int keys) {
    final Trades all = new Trades(keys);
    for (int i = 0; i < keys; i++) {
      all.key[i] = i + 1;
      all.value[i] = 1;
      all.size[i] = 1;
    }
    return all;
  }

  /** Adds all of this `times` times to states indexed by key. */
  void addTo(final State[] states, final int times) {
    for (int pass = 0; pass < times; pass++) {
      for (int i = 0; i < key.length; i++) {
        states[(int) key[i]].add(value[i], size[i]);
      }
    }
  }

  static State[] states(final int keys) {
    final State[] states = new State[keys + 1];
    Arrays.setAll(states, i -> new State());
    return states;
  }

  static void report(final int events, final double[] seconds) {
    Arrays.sort(seconds);
    System.out.printf(
        "{\"figure\": \"\", \"value\": %.3f, \"unit\": \"M/s\", \"exact\": true}%n",
        events / seconds[seconds.length / 2] / 1e6);
  }
}
