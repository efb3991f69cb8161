package bench;

import java.util.HashMap;
import java.util.Map;

/** Keyed VWAP by a plain loop over java.util.HashMap. Usage: HashMapLoop KEYS EVENTS PASSES. */
public final class HashMapLoop {
  private HashMapLoop() {}

  private static double pass(final Map<Long, Trades.State> states, final Trades trades) {
    final long begin = System.nanoTime();
    for (int i = 0; i < trades.key.length; i++) {
      states.computeIfAbsent(trades.key[i], key -> new Trades.State()).add(trades.value[i], trades.size[i]);
    }
    return (System.nanoTime() - begin) * 1e-9;
  }

  /** Runs, checks, prints one JSON line. */
  public static void main(final String[] arguments) {
    final int keys = Integer.parseInt(arguments[0]);
    final int events = Integer.parseInt(arguments[1]);
    final double[] seconds = new double[Integer.parseInt(arguments[2])];
    final Trades growth = Trades.growth(keys);
    final Trades trades = Trades.random(keys, events);
    final Map<Long, Trades.State> states = new HashMap<>();
    pass(states, growth);
    pass(states, trades); // compiles
    for (int i = 0; i < seconds.length; i++) {
      seconds[i] = pass(states, trades);
    }
    final Trades.State[] want = Trades.states(keys);
    growth.addTo(want, 1);
    trades.addTo(want, seconds.length + 1);
    for (int key = 1; key <= keys; key++) {
      if (!want[key].same(states.get((long) key))) {
        throw new AssertionError("the totals of key " + key);
      }
    }
    Trades.report(events, seconds);
  }
}
