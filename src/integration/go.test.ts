import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keepsItsLedger } from '../testing/ledger.js';
import { SKIP_INTEGRATION } from '../testing/servers.js';

/**
 * Go: a static program whose runtime has threads come and go, interrupts them by signals (SIGURG), sleeps on futexes and
 * waits for sockets by an epoll; many goroutines, some of which do nothing but make work for the collector.
 */
const SERVER = `
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

type entry struct {
	count  int
	digest string
}

var (
	mutex  sync.Mutex
	ledger = map[string]entry{}
)

func fail(err error) {
	fmt.Println("FAIL", err)
	os.Exit(1)
}

func write(name, word string) string {
	mutex.Lock()
	defer mutex.Unlock()
	was := ledger[name]
	is := entry{was.count + 1, fmt.Sprintf("%x", sha256.Sum256([]byte(was.digest+word)))}
	ledger[name] = is
	return fmt.Sprintf("%s %d %s\\n", name, is.count, is.digest)
}

func serve(connection net.Conn) {
	reader := bufio.NewReader(connection)
	for {
		line, err := reader.ReadString('\\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		switch words[0] {
		case "timer":
			time.Sleep(5 * time.Millisecond)
		case "goroutines":
			// The word is handed on by a hundred goroutines, of which the last answers.
			first := make(chan string)
			last := first
			for i := 0; i < 100; i++ {
				next := make(chan string)
				go func(from, to chan string) { to <- <-from }(last, next)
				last = next
			}
			first <- words[2]
			words[2] = <-last
		case "busy":
			// No call for a while: only a signal can make it give way.
			for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
			}
			runtime.GC()
		}
		if _, err := connection.Write([]byte(write(words[1], words[2]))); err != nil {
			fail(err)
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fail(err)
	}
	for i := 0; i < 1000; i++ {
		go func() {
			for {
				time.Sleep(time.Second)
			}
		}()
	}
	fmt.Println("ready")
	for {
		connection, err := listener.Accept()
		if err != nil {
			fail(err)
		}
		go serve(connection)
	}
}
`;

const PORT = 9002;

test('A Go server under load', { skip: SKIP_INTEGRATION }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-go-'));
  const source = join(directory, 'server.go');
  const server = join(directory, 'server');
  writeFileSync(source, SERVER);
  execFileSync('go', ['build', '-o', server, source], {
    cwd: directory,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off', GOCACHE: join(directory, 'cache') },
  });
  const ways = ['now', 'now', 'timer', 'goroutines', 'busy'];
  await keepsItsLedger({ command: [server, `127.0.0.1:${PORT}`], directory, port: PORT, ways });
});
