//! The promise: a client of throttlecrab reads the answers that its own server gives, over the Redis protocol and over HTTP.

use crate::kit::{
    self,
    resp::{Client, command},
    rules::PATIENCE,
};

#[test]
fn the_five_numbers_are_those_of_throttlecrab() {
    let cluster = kit::patient_nodes(2, "rules: []\n");
    let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| Client::new(node.resp)).collect();
    let mut ask = |node: usize, words: &[&str]| {
        clients[node].say(&command(words));
        clients[node].five()
    };
    // The example of its documentation.
    assert_eq!(ask(0, &["THROTTLE", "k", "10", "100", "60"]), [1, 10, 9, 5, 0]);
    let take: &[&str] = &["THROTTLE", "slow", "3", "1", "3600"];
    assert_eq!(ask(0, take), [1, 3, 2, 7_200, 0]);
    assert_eq!(ask(1, take)[..3], [1, 3, 1]);
    assert_eq!(ask(0, take)[..3], [1, 3, 0]);
    let [allowed, limit, remaining, reset, retry] = ask(1, take)[..] else { panic!() };
    assert_eq!((allowed, limit, remaining), (0, 3, 0));
    assert!((14_300..=14_400).contains(&reset) && (3_500..=3_600).contains(&retry), "{reset} {retry}");
    // A look is allowed, and takes nothing.
    assert_eq!(ask(0, &["THROTTLE", "slow", "3", "1", "3600", "0"])[..3], [1, 3, 0]);
    // It is the bucket of CL.THROTTLE with one less.
    assert_eq!(ask(0, &["CL.THROTTLE", "slow", "2", "1", "3600"])[..3], [1, 3, 0]);
    // A reset fills it, and tells what a look says.
    assert_eq!(ask(1, &["THROTTLE.RESET", "slow", "3", "1", "3600"])[..3], [1, 3, 3]);
    assert_eq!(ask(0, take)[..3], [1, 3, 2]);
    assert_eq!(ask(1, &["CL.RESET", "slow", "2", "1", "3600"]), [0, 3, 3, -1, 0]);
    clients[0].say(&command(&["THROTTLE", "k", "0", "100", "60"]));
    assert_eq!(clients[0].line(), "-ERR max_burst is 0, and must be at least 1");
}

#[test]
fn its_call_over_http_is_answered_too() {
    let cluster = kit::patient_nodes(2, "rules: []\n");
    let ask = |node: usize, body: &str| {
        let answer = cluster.nodes[node].client(PATIENCE).post("/throttle", body).unwrap();
        (answer.status, answer.json())
    };
    let (status, answer) = ask(0, r#"{"key":"k","max_burst":10,"count_per_period":100,"period":60}"#);
    let expected = serde_json::json!({
        "allowed": true, "limit": 10, "remaining": 9, "reset_after": 5, "retry_after": 0,
    });
    assert_eq!((status, answer), (200, expected));
    let body = r#"{"key":"slow","max_burst":2,"count_per_period":1,"period":3600,"quantity":2}"#;
    assert_eq!(ask(1, body).1["allowed"], true);
    let (status, denied) = ask(0, body);
    assert_eq!((status, &denied["allowed"], &denied["remaining"]), (200, &false.into(), &0.into()));
    assert!(denied["retry_after"].as_u64().unwrap() > 7_000, "{denied}");
    for (body, says) in [
        ("{", "EOF"),
        (r#"{"key":"k"}"#, "max_burst"),
        (r#"{"key":"k","max_burst":0,"count_per_period":1,"period":1}"#, "max_burst is 0"),
    ] {
        let (status, answer) = ask(0, body);
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
    }
    let wrong = cluster.nodes[0].client(PATIENCE).get("/throttle").unwrap();
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[test]
fn a_period_of_a_year_is_kept() {
    let cluster = kit::patient_nodes(2, "rules: []\n");
    let mut client = Client::new(cluster.nodes[0].resp);
    let once = command(&["CL.THROTTLE", "yearly", "0", "1", "31536000"]);
    client.say(&once);
    assert_eq!(client.five(), [0, 1, 0, -1, 31_536_000]);
    let mut client = Client::new(cluster.nodes[1].resp);
    client.say(&once);
    let five = client.five();
    assert_eq!(five[..3], [1, 1, 0]);
    assert!((31_535_900..=31_536_000).contains(&five[3]), "{five:?}");
}
