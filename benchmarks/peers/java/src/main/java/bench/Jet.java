package bench;

import com.hazelcast.config.Config;
import com.hazelcast.core.Hazelcast;
import com.hazelcast.core.HazelcastInstance;
import com.hazelcast.jet.aggregate.AggregateOperation;
import com.hazelcast.jet.aggregate.AggregateOperation1;
import com.hazelcast.jet.config.JobConfig;
import com.hazelcast.jet.pipeline.BatchSource;
import com.hazelcast.jet.pipeline.Pipeline;
import com.hazelcast.jet.pipeline.Sink;
import com.hazelcast.jet.pipeline.SinkBuilder;
import com.hazelcast.jet.pipeline.SourceBuilder;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Keyed VWAP by Hazelcast Jet: one member in this process, a batch job that aggregates by key, local parallelism of its
 * choice. Usage: Jet KEYS EVENTS PASSES. A pass is a job, from submission to its end; starting and ending an empty job
 * is timed too and taken off. The member finds no others, listens on the loopback address and reports to nobody.
 */
public final class Jet {
  static Trades trades;
  static final Map<Long, Trades.State> ANSWER = new ConcurrentHashMap<>();

  private Jet() {}

  /** An event as an object, as a job of Jet sees it. */
  static final class Trade implements java.io.Serializable {
    final long key;
    final double value;
    final int size;

    Trade(final long key, final double value, final int size) {
      this.key = key;
      this.value = value;
      this.size = size;
    }
  }

  private static Pipeline pipeline(final int events) {
    final BatchSource<Trade> source =
        SourceBuilder.batch("trades", context -> new int[1])
            .<Trade>fillBufferFn(
                (next, buffer) -> {
                  final Trades all = trades;
                  final int until = Math.min(next[0] + 4096, events);
                  for (int i = next[0]; i < until; i++) {
                    buffer.add(new Trade(all.key[i], all.value[i], all.size[i]));
                  }
                  next[0] = until;
                  if (until == events) {
                    buffer.close();
                  }
                })
            .build();
    final AggregateOperation1<Trade, Trades.State, Trades.State> vwap =
        AggregateOperation.withCreate(Trades.State::new)
            .<Trade>andAccumulate((state, trade) -> state.add(trade.value, trade.size))
            .andExportFinish(state -> state);
    final Sink<Map.Entry<Long, Trades.State>> sink =
        SinkBuilder.sinkBuilder("answer", context -> ANSWER)
            .<Map.Entry<Long, Trades.State>>receiveFn((answer, row) -> ANSWER.put(row.getKey(), row.getValue()))
            .build();
    final Pipeline pipeline = Pipeline.create();
    pipeline.readFrom(source).groupingKey(trade -> trade.key).aggregate(vwap).writeTo(sink);
    return pipeline;
  }

  private static double run(final HazelcastInstance member, final int events) {
    ANSWER.clear();
    final long begin = System.nanoTime();
    member.getJet().newJob(pipeline(events), new JobConfig()).join();
    return (System.nanoTime() - begin) * 1e-9;
  }

  /** Runs, checks, prints one JSON line. */
  public static void main(final String[] arguments) {
    final int keys = Integer.parseInt(arguments[0]);
    final int events = Integer.parseInt(arguments[1]);
    final double[] seconds = new double[Integer.parseInt(arguments[2])];
    trades = Trades.random(keys, events);
    final Config config = new Config();
    config.getJetConfig().setEnabled(true);
    config.setProperty("hazelcast.logging.type", "none");
    config.setProperty("hazelcast.phone.home.enabled", "false");
    config.setProperty("hazelcast.socket.bind.any", "false");
    config.getNetworkConfig().getInterfaces().setEnabled(true).addInterface("127.0.0.1");
    config.getNetworkConfig().getJoin().getAutoDetectionConfig().setEnabled(false);
    config.getNetworkConfig().getJoin().getMulticastConfig().setEnabled(false);
    final HazelcastInstance member = Hazelcast.newHazelcastInstance(config);
    run(member, events); // compiles
    run(member, 0);
    for (int i = 0; i < seconds.length; i++) {
      final double empty = run(member, 0);
      seconds[i] = run(member, events) - empty;
    }
    final Trades.State[] want = Trades.states(keys);
    trades.addTo(want, 1);
    for (int key = 1; key <= keys; key++) {
      final Trades.State got = ANSWER.getOrDefault((long) key, new Trades.State());
      if (!want[key].same(got)) {
        throw new AssertionError("the totals of key " + key);
      }
    }
    Trades.report(events, seconds);
    Hazelcast.shutdownAll();
  }
}
