import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keepsItsLedger } from '../testing/ledger.js';
import { SKIP_INTEGRATION } from '../testing/servers.js';

/**
 * A Java virtual machine: dozens of threads (collectors, compilers, one for each client), memory that is reserved and not
 * accessible, code that is written while it runs, safepoints by pages that are taken away, a file of counters in /tmp that
 * is mapped.
 */
const SERVER = `
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;

public class Server {
  record Entry(int count, String digest) {}

  static final Map<String, Entry> ledger = new ConcurrentHashMap<>();
  static final ScheduledExecutorService timers = Executors.newScheduledThreadPool(2);
  static final ExecutorService pool = Executors.newCachedThreadPool();

  static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }

  static Entry next(Entry was, String word) {
    try {
      var sha = MessageDigest.getInstance("SHA-256");
      sha.update((was == null ? "" : was.digest()).getBytes(StandardCharsets.US_ASCII));
      sha.update(word.getBytes(StandardCharsets.US_ASCII));
      return new Entry((was == null ? 0 : was.count()) + 1, hex(sha.digest()));
    } catch (Exception error) {
      throw new RuntimeException(error);
    }
  }

  /** Garbage, of which a part lives for a while. */
  static String churn(String word) {
    var kept = new ArrayList<byte[]>();
    for (int i = 0; i < 200; i++) {
      var bytes = word.getBytes(StandardCharsets.US_ASCII);
      if (i % 10 == 0) kept.add(bytes);
    }
    return new String(kept.get(kept.size() - 1), StandardCharsets.US_ASCII);
  }

  static void serve(Socket socket) {
    try {
      var in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
      var out = socket.getOutputStream();
      for (String line; (line = in.readLine()) != null; ) {
        var words = line.split(" ");
        var word = words[2];
        switch (words[0]) {
          case "timer" -> word = timers.schedule(() -> words[2], 5, TimeUnit.MILLISECONDS).get();
          case "thread" -> word = pool.submit(() -> churn(words[2])).get();
          case "collect" -> System.gc();
        }
        var given = word;
        var is = ledger.compute(words[1], (name, was) -> next(was, given));
        out.write((words[1] + " " + is.count() + " " + is.digest() + "\\n").getBytes(StandardCharsets.US_ASCII));
      }
    } catch (Throwable error) {
      System.out.println("FAIL " + error);
    }
  }

  public static void main(String[] args) throws Exception {
    var listener = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"));
    System.out.println("ready");
    for (;;) {
      var socket = listener.accept();
      new Thread(() -> serve(socket)).start();
    }
  }
}
`;

const PORT = 9003;
const COLLECTORS = ['-XX:+UseSerialGC', '-XX:+UseG1GC'];

for (const [index, collector] of COLLECTORS.entries())
  test(`A Java server under load, ${collector}`, { skip: SKIP_INTEGRATION }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'stasis-java-'));
    writeFileSync(join(directory, 'Server.java'), SERVER);
    execFileSync('javac', ['-J-Xmx128m', 'Server.java'], {
      cwd: directory,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const port = PORT + 10 * index;
    const command = ['java', '-Xmx64m', collector, '-cp', directory, 'Server', String(port)];
    const ways = ['now', 'now', 'now', 'timer', 'thread', 'collect'];
    await keepsItsLedger({ command, directory, port, ways });
  });
