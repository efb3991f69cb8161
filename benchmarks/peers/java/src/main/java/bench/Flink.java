package bench;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * Keyed VWAP by Flink: a local cluster in this process, state on the heap, objects reused, no checkpoints. Usage: Flink
 * SLOTS KEYS EVENTS PASSES. With one slot the whole job is one chain, without an exchange by key; with more there is
 * one. A pass is a job; its time is from the first event that a source gives to the end of the last task's input.
 */
public final class Flink {
  static Trades trades;
  static final Map<Long, Trades.State> ANSWER = new ConcurrentHashMap<>();
  static final AtomicLong BEGIN = new AtomicLong();
  static final AtomicLong END = new AtomicLong();

  private Flink() {}

  /** The event of an index. */
  private static final class Read extends RichMapFunction<Long, Tuple3<Long, Double, Integer>> {
    private transient Trades all;
    private transient Tuple3<Long, Double, Integer> event;

    @Override
    public void open(final OpenContext context) {
      all = trades;
      event = new Tuple3<>();
    }

    @Override
    public Tuple3<Long, Double, Integer> map(final Long index) {
      if (BEGIN.get() == 0) {
        BEGIN.compareAndSet(0, System.nanoTime());
      }
      final int i = index.intValue();
      event.f0 = all.key[i];
      event.f1 = all.value[i];
      event.f2 = all.size[i];
      return event;
    }
  }

  /** The totals of a key; they stay where Flink keeps them, and ANSWER knows them too. */
  private static final class Vwap extends KeyedProcessFunction<Long, Tuple3<Long, Double, Integer>, Long> {
    private transient ValueState<Trades.State> totals;

    @Override
    public void open(final OpenContext context) {
      totals = getRuntimeContext().getState(new ValueStateDescriptor<>("totals", Trades.State.class));
    }

    @Override
    public void processElement(
        final Tuple3<Long, Double, Integer> event, final Context context, final Collector<Long> out) throws Exception {
      Trades.State state = totals.value();
      if (state == null) {
        state = new Trades.State();
        ANSWER.put(event.f0, state);
      }
      state.add(event.f1, event.f2);
      totals.update(state);
    }

    @Override
    public void close() {
      END.accumulateAndGet(System.nanoTime(), Math::max);
    }
  }

  private static double run(final int slots, final int events) throws Exception {
    ANSWER.clear();
    BEGIN.set(0);
    END.set(0);
    final Configuration configuration = new Configuration();
    configuration.setString("rest.bind-address", "127.0.0.1");
    configuration.setString("taskmanager.memory.network.min", "64mb");
    configuration.setString("taskmanager.memory.network.max", "64mb");
    final StreamExecutionEnvironment environment =
        StreamExecutionEnvironment.createLocalEnvironment(slots, configuration);
    environment.getConfig().enableObjectReuse();
    final TypeInformation<Tuple3<Long, Double, Integer>> type = Types.TUPLE(Types.LONG, Types.DOUBLE, Types.INT);
    final DataStream<Tuple3<Long, Double, Integer>> read =
        environment.fromSequence(0, events - 1L).map(new Read()).returns(type);
    final KeyedStream<Tuple3<Long, Double, Integer>, Long> keyed =
        slots == 1
            ? DataStreamUtils.reinterpretAsKeyedStream(read, event -> event.f0, Types.LONG)
            : read.keyBy(event -> event.f0, Types.LONG);
    keyed.process(new Vwap()).returns(Types.LONG).sinkTo(new DiscardingSink<>());
    environment.execute();
    return (END.get() - BEGIN.get()) * 1e-9;
  }

  /** Runs, checks, prints one JSON line. */
  public static void main(final String[] arguments) throws Exception {
    final int slots = Integer.parseInt(arguments[0]);
    final int keys = Integer.parseInt(arguments[1]);
    final int events = Integer.parseInt(arguments[2]);
    final double[] seconds = new double[Integer.parseInt(arguments[3])];
    trades = Trades.random(keys, events);
    run(slots, events); // compiles
    for (int i = 0; i < seconds.length; i++) {
      seconds[i] = run(slots, events);
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
    System.exit(0);
  }
}
