use tidegate_proto::RecordError;

use super::*;
use crate::key::ClusterKey;

fn keys(bytes: &[u8]) -> Arc<KeyRing> {
    let key = |byte: &u8| ClusterKey::parse(&format!("the secret number {byte:03}")).unwrap();
    Arc::new(KeyRing::new(bytes.iter().map(key).collect()))
}

fn identity(name: &str, cluster: &str, key: u8) -> Identity {
    Identity {
        me: MemberId { name: name.into(), incarnation: 5 },
        id: 77,
        cluster: cluster.to_owned(),
        keys: keys(&[key]),
        tls: None,
        stats: Arc::default(),
    }
}

type Called = Result<Session, HandshakeError>;
type Answered = Result<(Peer, Session), HandshakeError>;

async fn meet_as(caller: Identity, answerer: Identity, expected: &str) -> (Called, Answered) {
    let (mut near, mut far) = tokio::io::duplex(4096);
    let (called, answered) =
        tokio::join!(call(&mut near, &caller, Some(expected)), answer(&mut far, &answerer, None));
    (called.map(|(_, session)| session), answered)
}

#[tokio::test]
async fn who_asks_an_address_who_is_there_is_told_also_when_it_is_itself() {
    for (caller, incarnation) in [(identity("n1", "c", 1), 5), (identity("n2", "c", 1), 5)] {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let there = identity("n2", "c", 1);
        let (found, answered) = tokio::join!(call(&mut near, &caller, None), answer(&mut far, &there, None));
        let (found, _) = found.unwrap();
        assert_eq!(found, MemberId { name: "n2".into(), incarnation });
        assert_eq!(answered.is_err(), found == caller.me, "{answered:?}");
    }
    let (mut near, mut far) = tokio::io::duplex(4096);
    let (ours, theirs) = (identity("n1", "c", 1), identity("n2", "other", 1));
    let (found, _) = tokio::join!(call(&mut near, &ours, None), answer(&mut far, &theirs, None));
    assert!(found.unwrap_err().is_refusal());
}

/// What comes back for these bytes, until the stream ends.
async fn answered(bytes: &[u8]) -> (Vec<u8>, HandshakeError) {
    let (mut near, mut far) = tokio::io::duplex(4096);
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let error = answer(&mut far, &identity("n1", "secret-cluster-name", 1), None).await.unwrap_err();
    drop(far);
    let mut back = Vec::new();
    near.read_to_end(&mut back).await.unwrap();
    (back, error)
}

#[tokio::test]
async fn nodes_of_one_cluster_find_each_other_and_talk() {
    let (called, answered) = meet_as(identity("n1", "c", 1), identity("n2", "c", 1), "n2").await;
    let (mut called, (peer, mut answered)) = (called.unwrap(), answered.unwrap());
    assert_eq!((peer.member.to_string(), peer.id), ("n1@5".to_owned(), 77));
    called.outbox.put(&Refused { reason: "there".into() }).unwrap();
    answered.inbox.unread().extend_from_slice(called.outbox.sealed());
    assert_eq!(answered.inbox.first().unwrap().unwrap().kind, Kind::Refused);
    // Its own bytes sent back to it are not the other direction's.
    let (echo, _) = meet_as(identity("n1", "c", 1), identity("n2", "c", 1), "n2").await;
    let mut echo = echo.unwrap();
    echo.outbox.put(&Refused { reason: "there".into() }).unwrap();
    let bytes = echo.outbox.sealed().split();
    echo.inbox.unread().extend_from_slice(&bytes);
    assert_eq!(echo.inbox.first(), Err(RecordError::Seal));
}

#[tokio::test]
async fn another_key_is_named_on_both_sides() {
    let (called, answered) = meet_as(identity("n1", "c", 1), identity("n2", "c", 2), "n2").await;
    assert!(matches!(called, Err(HandshakeError::Turned(Refusal::WrongKey))), "{called:?}");
    assert!(matches!(answered, Err(HandshakeError::OtherKey)), "{answered:?}");
    let said = called.unwrap_err().to_string() + &answered.unwrap_err().to_string();
    assert!(said.contains("--cluster-key-file") && said.contains("openssl rand -hex 32"), "{said}");
}

#[tokio::test]
async fn another_cluster_and_another_node_are_refused() {
    let (called, answered) = meet_as(identity("n1", "a", 1), identity("n2", "b", 1), "n2").await;
    let Err(HandshakeError::Refused(reason)) = called else { panic!("{called:?}") };
    assert!(reason.contains("--cluster-name"), "who holds the key is told all: {reason}");
    assert!(matches!(answered, Err(HandshakeError::OtherCluster { .. })), "{answered:?}");

    let (called, answered) = meet_as(identity("n1", "c", 1), identity("n3", "c", 1), "n2").await;
    assert!(matches!(called, Err(HandshakeError::Refused(_))), "{called:?}");
    assert!(matches!(answered, Err(HandshakeError::OtherNode { .. })), "{answered:?}");

    let (_, answered) = meet_as(identity("n2", "c", 1), identity("n2", "c", 1), "n2").await;
    assert!(matches!(answered, Err(HandshakeError::OwnName(_))), "{answered:?}");

    let mut later = identity("n2", "c", 1);
    later.me.incarnation += 1;
    let (called, answered) = meet_as(later, identity("n2", "c", 1), "n2").await;
    assert!(called.is_ok() && answered.is_ok(), "{called:?} {answered:?}");
}

#[tokio::test]
async fn garbage_and_another_version_are_named() {
    for (bytes, word) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], "foreign"), (b"TG\x06\x01", "wire_version")] {
        let (_, error) = answered(bytes).await;
        assert_eq!(error.as_str(), word, "{error}");
    }
}

/// Attack M6 of the review: the port told the cluster's name, and gave a proof to guess the key with.
#[tokio::test]
async fn a_stranger_gets_a_nonce_and_a_fixed_word_whatever_it_sends() {
    let hello = Greeting::Hello([7; 16]).to_bytes();
    let guess = {
        let (caller, _) = session_keys(&[9; 32], &[7; 16], &[0; 16]);
        let mut outbox = Outbox::new(caller);
        outbox
            .put(&Introduction {
                cluster: "guess".into(),
                node: "n9".into(),
                incarnation: 1,
                id: 1,
                to: "n1".into(),
            })
            .unwrap();
        outbox.sealed().to_vec()
    };
    let long = [&hello[..], &u32::MAX.to_le_bytes()].concat();
    let cases = [
        (hello.clone(), 20, "closed"),
        ([&hello[..], &guess].concat(), 25, "wrong_key"),
        (long, 25, "malformed"),
        (Greeting::Challenge([7; 16]).to_bytes(), 5, "malformed"),
        (b"TG\x06\x01".to_vec(), 5, "wire_version"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0, "foreign"),
        (guess, 0, "foreign"),
    ];
    for (bytes, length, word) in cases {
        let (back, error) = answered(&bytes).await;
        assert_eq!((back.len(), error.as_str()), (length, word), "{error}");
        assert!(!back.windows(6).any(|part| part == b"secret" || part == b"node n"), "{back:02x?}");
    }
}

/// A handshake with a nonce that was used before is another one.
#[tokio::test]
async fn what_was_recorded_of_a_handshake_opens_no_other_stream() {
    let (mut near, mut far) = tokio::io::duplex(4096);
    let (mut recorded, mut sent) = (Vec::new(), [0; 20]);
    let (n1, n2) = (identity("n1", "c", 1), identity("n2", "c", 1));
    let answer_n2 = async { answer(&mut far, &n2, None).await.map(|(peer, _)| peer) };
    let by_hand = async {
        let mut caller = introduce_by_hand(&mut near, &n1, &mut sent).await;
        recorded.extend_from_slice(caller.sealed());
        near.write_all(&recorded).await.unwrap();
    };
    let (met, ()) = tokio::join!(answer_n2, by_hand);
    assert_eq!(met.unwrap().member.name.as_ref(), "n1");

    let (mut near, mut far) = tokio::io::duplex(4096);
    near.write_all(&[&sent[..], &recorded].concat()).await.unwrap();
    let error = answer(&mut far, &n2, None).await.unwrap_err();
    assert!(matches!(error, HandshakeError::OtherKey), "{error}");
}

/// Greets, and returns the introduction; `hello` is what was said first.
async fn introduce_by_hand(
    stream: &mut tokio::io::DuplexStream,
    identity: &Identity,
    hello: &mut [u8; 20],
) -> Outbox {
    hello.copy_from_slice(&Greeting::Hello([3; 16]).to_bytes());
    stream.write_all(hello).await.unwrap();
    let mut back = [0; 20];
    stream.read_exact(&mut back).await.unwrap();
    let Ok(Some((Greeting::Challenge(nonce), _))) = Greeting::first(&back) else { panic!("{back:?}") };
    let mut outbox = Outbox::new(session_keys(&identity.keys.to_seal(), &[3; 16], &nonce).0);
    let introduction = Introduction {
        cluster: identity.cluster.clone(),
        node: identity.me.name.to_string(),
        incarnation: 5,
        id: 77,
        to: "n2".into(),
    };
    outbox.put(&introduction).unwrap();
    outbox
}

#[tokio::test(start_paused = true)]
async fn a_silent_caller_is_given_up() {
    let (_near, mut far) = tokio::io::duplex(4096);
    let error = answer(&mut far, &identity("n1", "c", 1), None).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Timeout));
}

#[tokio::test]
async fn while_keys_change_the_first_one_introduces_and_each_is_understood() {
    let node = |name: &str, numbers: &[u8]| Identity { keys: keys(numbers), ..identity(name, "c", 0) };
    // As a cluster goes from 1 to 2; neighbours meet, in both directions.
    let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    for pair in steps.windows(2) {
        for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let (called, answered) = meet_as(node("n1", from), node("n2", to), "n2").await;
            let (mut called, (_, mut answered)) = (called.unwrap(), answered.unwrap());
            called.outbox.put(&Refused { reason: "there".into() }).unwrap();
            answered.inbox.unread().extend_from_slice(called.outbox.sealed());
            assert!(answered.inbox.first().unwrap().is_some(), "{from:?} {to:?}");
        }
    }
    let (called, answered) = meet_as(node("n1", &[2]), node("n2", &[1]), "n2").await;
    assert!(matches!(called, Err(HandshakeError::Turned(Refusal::WrongKey))));
    assert!(matches!(answered, Err(HandshakeError::OtherKey)));
}

#[tokio::test]
async fn who_introduces_itself_by_another_name_than_its_certificates_is_refused_and_told() {
    let made = rcgen::generate_simple_self_signed(vec!["n9".to_owned()]).unwrap();
    let shown = Certificate::of(made.cert.der()).unwrap();
    for (name, is_let_in) in [("n9", true), ("n1", false), ("N9", false)] {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let (caller, there) = (identity(name, "c", 1), identity("n2", "c", 1));
        let (called, answered) =
            tokio::join!(call(&mut near, &caller, Some("n2")), answer(&mut far, &there, Some(&shown)));
        assert_eq!(answered.is_ok(), is_let_in, "{name}");
        match called {
            Ok(_) => assert!(is_let_in, "{name}"),
            Err(error) => assert!(error.to_string().contains("certificate is for n9"), "{error}"),
        }
    }
    assert!(must_be_for(None, "n1").is_ok(), "without TLS nothing was shown");
}
