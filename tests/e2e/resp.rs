//! The promise: clients of redis-cell need another address, and nothing else.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use crate::kit::{
    self,
    resp::{Client, command},
    rules::{PATIENCE, SOON},
};
use tidegate_jepsen::{
    cluster::{Cluster, wait_for},
    history::monotonic,
};

const NO_RULES: &str = "rules: []\n";

fn seconds_since(start: u64) -> u64 {
    (monotonic() - start) / 1_000_000_000
}

#[test]
fn the_documented_example_and_then_the_limit_over_all_nodes() {
    let cluster = kit::patient_nodes(3, NO_RULES);
    let throttle = command(&["CL.THROTTLE", "user123", "15", "30", "60"]);
    let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| Client::new(node.resp)).collect();
    clients[0].say(&throttle);
    assert_eq!(clients[0].five(), [0, 16, 15, -1, 2]);
    let mut allowed = 1;
    for turn in 1..40 {
        let client = &mut clients[turn % 3];
        client.say(&throttle);
        let [limited, limit, remaining, retry, reset] = client.five()[..] else { panic!() };
        assert_eq!(limit, 16);
        if limited == 0 {
            allowed += 1;
            assert_eq!(retry, -1);
        } else {
            assert_eq!(remaining, 0);
            assert!((1..=2).contains(&retry) && (31..=32).contains(&reset), "{retry} {reset}");
        }
    }
    // One comes back every two seconds; the machine may be slow.
    assert!((16..=18).contains(&allowed), "{allowed}");
    // The same key and limit over HTTP is the same bucket.
    let body = r#"{"key": "user123", "limit": "30/1m", "burst": 16, "cost": 0}"#;
    let over_http = cluster.nodes[1].client(PATIENCE).post("/v1/check", body).unwrap().json();
    assert_eq!(over_http["limit"], 16);
    assert!(over_http["remaining"].as_u64().unwrap() <= 1, "{over_http}");
}

#[test]
fn a_quantity_takes_so_many_looks_or_is_too_much() {
    let cluster = kit::nodes(1, NO_RULES);
    let mut client = Client::new(cluster.nodes[0].resp);
    let mut ask = |quantity: &str| {
        client.say(&command(&["CL.THROTTLE", "k", "9", "10", "3600", quantity]));
        client.five()
    };
    assert_eq!(ask("0"), [0, 10, 10, -1, 0]);
    assert_eq!(ask("4"), [0, 10, 6, -1, 1_440]);
    assert_eq!(ask("0")[..3], [0, 10, 6]);
    assert_eq!(ask("7")[..3], [1, 10, 6], "a denied request costs nothing");
    assert_eq!(ask("6")[..3], [0, 10, 0]);
    assert_eq!(ask("11")[..4], [1, 10, 0, -1], "more than there ever is");
    assert_eq!(ask("0")[0], 0, "who looks is not limited");
}

#[test]
fn pipelines_are_answered_in_their_order_whoever_owns_the_keys() {
    let cluster = kit::patient_nodes(3, NO_RULES);
    let mut client = Client::new(cluster.nodes[0].resp);
    let keys = 500;
    let mut pipeline = String::new();
    for key in 0..keys {
        pipeline += &command(&["CL.THROTTLE", &format!("key-{key}"), &key.to_string(), "1", "3600"]);
        if key % 7 == 0 {
            pipeline += &command(&["ECHO", &format!("after-{key}")]);
        }
    }
    client.say(&pipeline);
    for key in 0..keys {
        let five = client.five();
        assert_eq!(five[..3], [0, key + 1, key], "the answer of key {key}");
        if key % 7 == 0 {
            client.line();
            assert_eq!(client.line(), format!("after-{key}"));
        }
    }
    // Each byte by itself, too.
    for byte in command(&["CL.THROTTLE", "slow", "1", "1", "60"]).into_bytes() {
        client.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.five()[0], 0);
}

#[test]
fn a_pipeline_of_a_client_that_does_not_read_ends_and_takes_no_memory() {
    let cluster = kit::nodes(1, NO_RULES);
    let node = &cluster.nodes[0];
    let mut client = Client::new(node.resp);
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let before = node.resident_bytes().unwrap();
    let block = command(&["CL.THROTTLE", "k", "1", "1", "60"]).repeat(1_000);
    let start = monotonic();
    let mut most = before;
    // The node gives it up after ten seconds without a byte taken.
    while seconds_since(start) < 25 {
        let said = client.stream.write_all(block.as_bytes());
        most = most.max(node.resident_bytes().unwrap());
        match said {
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
            Ok(()) => {}
        }
    }
    assert!(seconds_since(start) < 24, "it was given up");
    assert!(most < before + (32 << 20), "{before} bytes before, {most} at the most");
    // The client hears of the end when the socket closes, the gauge when the task is gone: a moment later.
    wait_for("the connection is not counted any more", PATIENCE, || {
        node.metric("tidegate_resp_connections") == Some(0.0)
    });
}

#[test]
fn what_is_wrong_is_told_and_the_connection_goes_on_if_it_can() {
    let cluster = kit::nodes(1, NO_RULES);
    let node = &cluster.nodes[0];
    let mut client = Client::new(node.resp);
    for (words, wrong) in [
        (&["CL.THROTTLE", "k"][..], "-ERR wrong number of arguments"),
        (&["CL.THROTTLE", "k", "x", "1", "60"], "-ERR max_burst"),
        (&["CL.THROTTLE", "k", "1", "1", "0"], "-ERR period"),
        (&["GET", "k"], "-ERR unknown command 'get'"),
        (&["DEL", "k"], "-ERR DEL: a key has a bucket for each limit"),
        (&["TTL", "k"], "-ERR TTL: a key has a bucket for each limit"),
        (&["HELLO", "9"], "-NOPROTO"),
    ] {
        client.say(&command(words));
        let line = client.line();
        assert!(line.starts_with(wrong), "{words:?}: {line}");
    }
    client.say("PING\r\n");
    assert_eq!(client.line(), "+PONG");
    client.say("*1\r\n$3\r\nlonger\r\n");
    assert!(client.line().starts_with("-ERR Protocol error"));
    assert!(client.ends());

    for bytes in
        ["POST / HTTP/1.1\r\nHost: a\r\n\r\nCL.THROTTLE k 1 1 1\r\n", "*99999\r\n", "*1\r\n$999999999\r\n"]
    {
        let mut client = Client::new(node.resp);
        client.say(bytes);
        assert!(client.ends(), "{bytes:?}");
    }
    let mut trickling = Client::new(node.resp);
    trickling.say("*2\r\n$4\r\n");
    let start = monotonic();
    assert!(trickling.ends());
    assert!((4..10).contains(&seconds_since(start)), "{} s", seconds_since(start));

    let mut client = Client::new(node.resp);
    client.say("QUIT\r\n");
    assert_eq!(client.line(), "+OK");
    assert!(client.ends());
}

#[test]
fn a_node_that_cannot_decide_says_that_it_is_loading_and_one_that_stops_answers_first() {
    let mut cluster = Cluster::empty(kit::settings(NO_RULES));
    let (port, absent) = (tidegate_jepsen::cluster::free_ports(), tidegate_jepsen::cluster::free_ports());
    cluster.spawn(port, &[port, absent], &["--bootstrap-expect".to_owned(), "2".to_owned()]);
    let node = &cluster.nodes[0];
    wait_for("it listens", SOON, || TcpStream::connect(node.resp).is_ok());
    let mut client = Client::new(node.resp);
    client.say(&command(&["CL.THROTTLE", "k", "1", "1", "60"]));
    let line = client.line();
    assert!(line.starts_with("-LOADING "), "{line}");

    let mut cluster = kit::nodes(1, NO_RULES);
    let mut client = Client::new(cluster.nodes[0].resp);
    client.say(&command(&["CL.THROTTLE", "k", "1", "1", "60"]));
    assert_eq!(client.five()[0], 0);
    let stopping = thread::spawn(move || cluster.terminate("n1"));
    assert!(client.ends(), "an idle connection is closed");
    assert_eq!(stopping.join().unwrap(), Some(0));
}

#[test]
fn redis_cli_and_redis_benchmark_get_along() {
    let cluster = kit::patient_nodes(2, NO_RULES);
    let port = cluster.nodes[1].resp.port().to_string();
    let run = |program: &str, arguments: &[&str]| -> Option<Output> {
        Command::new(program).args(["-h", "127.0.0.1", "-p", &port]).args(arguments).output().ok()
    };
    let Some(output) = run("redis-cli", &["CL.THROTTLE", "cli", "15", "30", "60"]) else {
        println!("NOT TESTED: redis-cli is not installed (package redis-tools)");
        return;
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(&output).split_whitespace().collect::<Vec<_>>(), ["0", "16", "15", "-1", "2"]);
    let output = run("redis-cli", &["-3", "CL.THROTTLE", "cli3", "15", "30", "60"]).unwrap();
    assert_eq!(text(&output).split_whitespace().collect::<Vec<_>>(), ["0", "16", "15", "-1", "2"]);
    let output = run("redis-cli", &["NONSENSE"]).unwrap();
    assert!(text(&output).contains("ERR unknown command"), "{}", text(&output));
    let bench = ["-n", "20000", "-c", "16", "-P", "16", "--csv", "CL.THROTTLE", "bench", "15", "30", "60"];
    let output = run("redis-benchmark", &bench).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("CL.THROTTLE"), "{}", text(&output));
}

#[test]
fn redis_py_gets_along_in_both_versions_of_the_protocol() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/redis-py/bin/python");
    if !python.exists() {
        println!("NOT TESTED: redis-py is not in target/tools (bash .ci/tools-redis)");
        return;
    }
    let cluster = kit::patient_nodes(2, NO_RULES);
    let script = r"
import sys, redis
port = int(sys.argv[1])
for protocol in (2, 3):
    client = redis.Redis(port=port, protocol=protocol, socket_timeout=20)
    assert client.ping()
    key = 'py%d' % protocol
    assert client.execute_command('CL.THROTTLE', key, 15, 30, 60) == [0, 16, 15, -1, 2]
    pipe = client.pipeline(transaction=False)
    for _ in range(100):
        pipe.execute_command('CL.THROTTLE', key, 15, 30, 3600)
    limited = [answer[0] for answer in pipe.execute()]
    # Those that another node decides are asked at the same time, and one that has to be asked again comes later.
    assert limited.count(0) in (15, 16), limited
    try:
        client.execute_command('CL.THROTTLE', key, 'x', 30, 60)
        raise SystemExit('no error')
    except redis.ResponseError as error:
        assert 'max_burst' in str(error), error
    # Its default pipeline is a transaction.
    pipe = client.pipeline()
    for _ in range(3):
        pipe.execute_command('CL.THROTTLE', key + 'multi', 1, 1, 3600)
    # As above: another node may decide them, in whatever order.
    assert sorted(answer[0] for answer in pipe.execute()) == [0, 0, 1]
    pipe.execute_command('CL.THROTTLE', key + 'none', 1, 1, 3600)
    pipe.execute_command('CL.THROTTLE', key + 'none', 1, 'x', 3600)
    try:
        pipe.execute()
        raise SystemExit('no error')
    except redis.ResponseError as error:
        assert 'count' in str(error), error
    assert client.execute_command('CL.THROTTLE', key + 'none', 1, 1, 3600, 0)[2] == 2, 'nothing was charged'
    pipe.watch(key)
    pipe.multi()
    pipe.ping()
    assert pipe.execute() == [True]
    info = client.info()
    assert info['redis_version'] and info['role'] == 'master' and info['loading'] == 0, info
    assert client.info('replication') == {'role': 'master', 'connected_slaves': 0, 'master_repl_offset': 0}
    assert client.role()[0] in (b'master', 'master')
    for first in (b'\xff', b'\xfe'):
        binary = first + b'\x00' + key.encode()
        assert client.execute_command('CL.THROTTLE', binary, 1, 1, 60)[:3] == [0, 2, 1]
    client.close()
    # A client of clusters looks for the keys of commands, and where they are.
    whole = redis.RedisCluster(host='127.0.0.1', port=port, protocol=protocol, socket_timeout=20)
    assert whole.execute_command('CL.THROTTLE', key + 'cluster', 15, 30, 60) == [0, 16, 15, -1, 2]
    whole.close()
print('fine')
";
    let output = Command::new(python)
        .args(["-c", script, &cluster.nodes[0].resp.port().to_string()])
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&told).trim(), "fine");
}

#[test]
fn ioredis_and_node_redis_get_along() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/redis-node/node_modules");
    if !modules.join("ioredis").exists() || Command::new("node").arg("--version").output().is_err() {
        println!("NOT TESTED: ioredis is not in target/tools, or there is no Node (bash .ci/tools-redis)");
        return;
    }
    let cluster = kit::patient_nodes(2, NO_RULES);
    let output = Command::new("node")
        .args(["-e", NODE_CLIENTS, "--", &cluster.nodes[0].resp.port().to_string()])
        .env("NODE_PATH", modules)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&told).trim(), "fine");
}

const NODE_CLIENTS: &str = r"
const assert = require('assert');
const port = Number(process.argv.at(-1));
(async () => {
  const Redis = require('ioredis');
  // It asks INFO whether the server is ready.
  const io = new Redis({ port, maxRetriesPerRequest: 1 });
  assert.deepEqual(await io.call('CL.THROTTLE', 'io', 15, 30, 60), [0, 16, 15, -1, 2]);
  const answers = await io.multi().call('CL.THROTTLE', 'io-multi', 0, 1, 3600).call('CL.THROTTLE', 'io-multi', 0, 1, 3600).exec();
  assert.deepEqual(answers.map(([error, five]) => [error, five[0]]), [[null, 0], [null, 1]]);
  await assert.rejects(io.multi().call('CL.THROTTLE', 'io-none', 0, 1, 3600).call('CL.THROTTLE', 'io-none').exec(), /EXECABORT/);
  assert.deepEqual((await io.call('CL.THROTTLE', 'io-none', 0, 1, 3600))[0], 0, 'nothing was charged');
  const piped = await io.pipeline().call('CL.THROTTLE', 'io-pipe', 0, 1, 3600).ping().exec();
  assert.equal(piped[1][1], 'PONG');
  await assert.rejects(io.del('io'), /CL.RESET/);
  io.disconnect();

  const whole = new Redis.Cluster([{ host: '127.0.0.1', port }]);
  assert.deepEqual(await whole.call('CL.THROTTLE', 'io-cluster', 15, 30, 60), [0, 16, 15, -1, 2]);
  whole.disconnect();

  const { createClient } = require('redis');
  for (const RESP of [2, 3]) {
    const node = createClient({ socket: { port, host: '127.0.0.1' }, RESP });
    await node.connect();
    assert.deepEqual(await node.sendCommand(['CL.THROTTLE', 'node' + RESP, '15', '30', '60']), [0, 16, 15, -1, 2]);
    const both = await node.multi()
      .addCommand(['CL.THROTTLE', 'node-multi' + RESP, '0', '1', '3600'])
      .addCommand(['CL.THROTTLE', 'node-multi' + RESP, '0', '1', '3600'])
      .exec();
    assert.deepEqual(both.map((five) => five[0]), [0, 1]);
    node.destroy();
  }
  console.log('fine');
})().catch((error) => { console.log(error); process.exit(1); });
";

#[test]
fn a_command_that_trickles_in_is_given_up_after_a_few_seconds() {
    let cluster = kit::nodes(1, NO_RULES);
    let mut stream = TcpStream::connect(cluster.nodes[0].resp).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let begun = monotonic();
    stream.write_all(b"*2\r\n$4\r\nECHO\r\n$1000\r\n").unwrap();
    let ends = |stream: &mut TcpStream| {
        // A byte each half second, for as long as it is taken.
        stream.write_all(b"x").is_err()
            || match stream.read(&mut [0; 64]) {
                Ok(read) => read == 0,
                Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
    };
    while !ends(&mut stream) {
        assert!(seconds_since(begun) < 30, "it is still open");
    }
    assert!(seconds_since(begun) >= 4);
}
