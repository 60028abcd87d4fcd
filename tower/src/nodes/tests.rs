use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};

use super::*;

const HOMES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
const ALLOWED: &str = r#"{"allowed":true,"rule":null,"limit":null,"remaining":null,"retry_after_ms":null,"decided_by":"owner"}"#;

/// What stands at the old address of a node after it has moved.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// It takes what it is asked and never answers, as a machine that was cut off.
    Nothing,
    /// Another service.
    Stranger,
}

/// Answers one check of each connection as a node, the ones after it as is said.
async fn serve(listener: TcpListener, left: Option<Left>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut asked = 0;
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                asked += 1;
                let (status, body) = match left.filter(|_| asked > 1) {
                    None => ("200 OK", ALLOWED),
                    Some(Left::Stranger) => ("404 Not Found", "who are you?"),
                    Some(Left::Nothing) => continue,
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                if stream.write_all((head + body).as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test]
async fn a_node_that_moved_to_another_address_is_found_again() {
    for left in [Left::Nothing, Left::Stranger] {
        let old = TcpListener::bind((HOMES[0], 0)).await.unwrap();
        let port = old.local_addr().unwrap().port();
        let new = TcpListener::bind((HOMES[1], port)).await.unwrap();
        let mut servers = JoinSet::new();
        servers.spawn(serve(old, Some(left)));
        servers.spawn(serve(new, None));

        let home = Arc::new(Mutex::new((HOMES[0], 0)));
        let told = Arc::clone(&home);
        let resolver = Resolver::Told(Arc::new(move |name| {
            assert_eq!(name, "node.test");
            let mut home = told.lock().unwrap();
            home.1 += 1;
            IpAddr::V4(home.0)
        }));
        let call = format!("http://node.test:{port}/v1/check").parse().unwrap();
        let timeout = Duration::from_millis(150);
        let nodes = Nodes::resolved_by(&resolver, vec![call], "default".to_owned(), timeout, 64, false);
        let facts = Facts { attributes: Vec::new(), cost: 1 };

        // Together, so that each opens a connection of its own.
        let ask = || nodes.ask(&facts);
        for answer in <[_; 4]>::from(tokio::join!(ask(), ask(), ask(), ask())) {
            assert!(answer.unwrap().allowed);
        }
        let before = std::mem::replace(&mut *home.lock().unwrap(), (HOMES[1], 0)).1;
        assert!(before > 2, "{before} connections are kept");
        // They are there, and what they lead to is no node any more. One failure may be a pause.
        for rest in [110, 210] {
            let lost = nodes.ask(&facts).await.unwrap_err();
            assert!(matches!(lost, Unanswered::Late | Unanswered::Nobody(_)), "{left:?}: {lost}");
            sleep(Duration::from_millis(rest)).await;
        }
        assert!(nodes.ask(&facts).await.unwrap().allowed, "{left:?}");
        assert!(nodes.ask(&facts).await.unwrap().allowed);
        assert_eq!(home.lock().unwrap().1, 1, "a name is resolved for a connection, not for a check");
    }
}

/// Answers each connection's checks as is said: for how long it waits, and with which status. Counts connections.
async fn serve_slowly(listener: TcpListener, opened: Arc<AtomicUsize>, slow: Arc<AtomicBool>, problem: bool) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        opened.fetch_add(1, SeqCst);
        let slow = Arc::clone(&slow);
        connections.spawn(async move {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                let (status, kind, body) = match slow.load(SeqCst) {
                    true if problem => ("503 Service Unavailable", "application/problem+json", "{}"),
                    true => {
                        sleep(Duration::from_millis(300)).await;
                        ("200 OK", "application/json", ALLOWED)
                    }
                    false => ("200 OK", "application/json", ALLOWED),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + body).as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Found by review: all connections to the node were closed, and opened again, when it could least use that.
#[tokio::test]
async fn a_pause_and_an_answer_that_it_cannot_decide_cost_a_node_no_connections() {
    for problem in [false, true] {
        let listener = TcpListener::bind((HOMES[0], 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (opened, slow) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut servers = JoinSet::new();
        servers.spawn(serve_slowly(listener, Arc::clone(&opened), Arc::clone(&slow), problem));
        let call = format!("http://127.0.0.1:{port}/v1/check").parse().unwrap();
        let timeout = Duration::from_millis(150);
        let nodes =
            Nodes::resolved_by(&Resolver::default(), vec![call], "default".to_owned(), timeout, 64, false);
        let facts = Facts { attributes: Vec::new(), cost: 1 };
        let ask = || nodes.ask(&facts);
        for answer in <[_; 4]>::from(tokio::join!(ask(), ask(), ask(), ask())) {
            assert!(answer.unwrap().allowed);
        }
        let kept = opened.load(SeqCst);
        assert!(kept > 2, "{kept} connections are kept");
        slow.store(true, SeqCst);
        // Those that are asked together fail together; what says so itself may do it more than once.
        for rest in [110, 210] {
            assert!(tokio::join!(ask(), ask()).0.is_err());
            sleep(Duration::from_millis(rest)).await;
            if !problem {
                break;
            }
        }
        slow.store(false, SeqCst);
        let answers = async {
            while nodes.ask(&facts).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), answers).await.expect("the node is asked again");
        // A check that was given up has closed its own connection.
        assert!(opened.load(SeqCst) <= kept, "{} of {kept} were opened anew", opened.load(SeqCst) - kept);
    }
}
