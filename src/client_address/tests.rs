use super::*;

const EDGE: &str = "10.0.0.1";
const STRANGER: &str = "198.51.100.66";

fn trust(header: ForwardedHeader) -> Trust {
    let proxies = ["10.0.0.0/8", "192.0.2.7", "2001:db8:ffff::/48"];
    let proxies = proxies.map(|network| network.parse().unwrap()).to_vec();
    Trust::new(proxies, header, false)
}

fn client(header: ForwardedHeader, peer: &str, name: HeaderName, lines: &[&str]) -> String {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    trust(header).client(peer.parse().unwrap(), &headers).to_string()
}

/// Peer, the header's lines, the client.
const X_FORWARDED_FOR_CASES: &[(&str, &[&str], &str)] = &[
    // No header, or nobody to be believed.
    (EDGE, &[], EDGE),
    (STRANGER, &[], STRANGER),
    (STRANGER, &["203.0.113.9"], STRANGER),
    (STRANGER, &["10.0.0.1"], STRANGER),
    (STRANGER, &["203.0.113.9, 10.0.0.1"], STRANGER),
    ("::ffff:198.51.100.66", &["203.0.113.9"], STRANGER),
    ("192.0.2.8", &["203.0.113.9"], "192.0.2.8"),
    // One proxy.
    (EDGE, &["203.0.113.9"], "203.0.113.9"),
    ("192.0.2.7", &["203.0.113.9"], "203.0.113.9"),
    ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
    ("2001:db8:ffff::1", &["203.0.113.9"], "203.0.113.9"),
    // What the client wrote stands to the left of what the proxy wrote.
    (EDGE, &["8.8.8.8, 203.0.113.9"], "203.0.113.9"),
    (EDGE, &["127.0.0.1, 10.0.0.9, 8.8.8.8, 203.0.113.9"], "203.0.113.9"),
    (EDGE, &["10.0.0.9, 203.0.113.9"], "203.0.113.9"),
    // Several proxies.
    (EDGE, &["203.0.113.9, 10.1.1.1"], "203.0.113.9"),
    (EDGE, &["8.8.8.8, 203.0.113.9, 192.0.2.7, 10.1.1.1"], "203.0.113.9"),
    (EDGE, &["203.0.113.9, 198.51.100.1, 10.1.1.1"], "198.51.100.1"),
    // All of them are trusted: the one that is the furthest away.
    (EDGE, &["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
    // Several lines are one list.
    (EDGE, &["8.8.8.8", "203.0.113.9"], "203.0.113.9"),
    (EDGE, &["203.0.113.9", "10.1.1.1"], "203.0.113.9"),
    (EDGE, &["203.0.113.9, 10.2.2.2", "10.1.1.1"], "203.0.113.9"),
    // What cannot be read ends the walk at the last good one.
    (EDGE, &["unknown"], EDGE),
    (EDGE, &[""], EDGE),
    (EDGE, &[","], EDGE),
    // An empty element says nothing.
    (EDGE, &["203.0.113.9,"], "203.0.113.9"),
    (EDGE, &["8.8.8.8, 203.0.113.9, , \t,10.1.1.1,"], "203.0.113.9"),
    (EDGE, &["203.0.113.9", ""], "203.0.113.9"),
    (EDGE, &["203.0.113.9, unknown"], EDGE),
    (EDGE, &["203.0.113.9, unknown, 10.1.1.1"], "10.1.1.1"),
    (EDGE, &["203.0.113.256"], EDGE),
    (EDGE, &["203.0.113.9 10.0.0.1"], EDGE),
    (EDGE, &["0x7f.1"], EDGE),
    (EDGE, &["203.0.113.009"], EDGE),
    (EDGE, &["localhost"], EDGE),
    (EDGE, &["_hidden"], EDGE),
    (EDGE, &["[203.0.113.9]"], EDGE),
    (EDGE, &["203.0.113.9:"], EDGE),
    (EDGE, &["203.0.113.9:99999"], EDGE),
    (EDGE, &["'; DROP TABLE buckets"], EDGE),
    (EDGE, &["\u{e4}"], EDGE),
    // Ways to write an address.
    (EDGE, &["  203.0.113.9  "], "203.0.113.9"),
    (EDGE, &["\t203.0.113.9\t"], "203.0.113.9"),
    (EDGE, &["203.0.113.9:41000"], "203.0.113.9"),
    (EDGE, &["2001:DB8:0:0::7"], "2001:db8::7"),
    (EDGE, &["fe80::1%eth0"], "fe80::1"),
    (EDGE, &["\"203.0.113.9\""], "203.0.113.9"),
    (EDGE, &["64:ff9b::203.0.113.9"], "64:ff9b::cb00:7109"),
    (EDGE, &["[2001:db8::7]"], "2001:db8::7"),
    (EDGE, &["[2001:db8::7]:41000"], "2001:db8::7"),
    (EDGE, &["::ffff:203.0.113.9"], "203.0.113.9"),
    (EDGE, &["[::ffff:203.0.113.9]:41000"], "203.0.113.9"),
    (EDGE, &["203.0.113.9, ::ffff:10.1.1.1"], "203.0.113.9"),
    (EDGE, &["203.0.113.9, [2001:db8:ffff::2]:80"], "203.0.113.9"),
];

const FORWARDED_CASES: &[(&str, &[&str], &str)] = &[
    (STRANGER, &["for=203.0.113.9"], STRANGER),
    (EDGE, &["for=203.0.113.9"], "203.0.113.9"),
    (EDGE, &["For=\"203.0.113.9:41000\";proto=https;by=10.0.0.1"], "203.0.113.9"),
    (EDGE, &["proto=https;for=203.0.113.9"], "203.0.113.9"),
    (EDGE, &["for=\"[2001:db8::7]:41000\""], "2001:db8::7"),
    (EDGE, &["for=\"[2001:db8::7]\""], "2001:db8::7"),
    (EDGE, &["for=8.8.8.8, for=203.0.113.9"], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9;host=a , for=10.1.1.1 ; proto=http"], "203.0.113.9"),
    (EDGE, &["for=8.8.8.8", "for=203.0.113.9"], "203.0.113.9"),
    // What stands in quotes is no syntax.
    (EDGE, &["for=203.0.113.9;host=\"x, for=8.8.8.8\""], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9;host=\"x;for=8.8.8.8\""], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9;host=\"x\\\", for=8.8.8.8\""], "203.0.113.9"),
    (EDGE, &["for=\"8.8.8.8, for=203.0.113.9"], EDGE),
    (EDGE, &["for=\"8.8.8.8", "for=203.0.113.9"], "203.0.113.9"),
    // Nothing that could be used.
    (EDGE, &["for=unknown"], EDGE),
    (EDGE, &["for=_secret"], EDGE),
    (EDGE, &["for=203.0.113.9, for=_secret"], EDGE),
    (EDGE, &["for=203.0.113.9, proto=http"], EDGE),
    (EDGE, &["for=203.0.113.9;for=8.8.8.8"], EDGE),
    (EDGE, &["for 203.0.113.9"], EDGE),
    (EDGE, &["203.0.113.9"], EDGE),
    (EDGE, &[""], EDGE),
    (EDGE, &["for=203.0.113.9,"], "203.0.113.9"),
    (EDGE, &[",for=203.0.113.9"], "203.0.113.9"),
    (EDGE, &["for=8.8.8.8,for=203.0.113.9,, for=10.1.1.1;"], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9", ""], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9;;proto=http"], "203.0.113.9"),
    (EDGE, &["for=203.0.113.9,;"], EDGE),
    (EDGE, &["for=203.0.113.9 x"], EDGE),
    (EDGE, &["for=2\"03.0.113.9\""], EDGE),
    (EDGE, &["=203.0.113.9"], EDGE),
];

#[test]
fn the_client_is_the_first_that_is_no_trusted_proxy_from_the_right() {
    for (peer, lines, expected) in X_FORWARDED_FOR_CASES {
        let found = client(ForwardedHeader::XForwardedFor, peer, X_FORWARDED_FOR, lines);
        assert_eq!(&found, expected, "X-Forwarded-For {lines:?} from {peer}");
    }
    for (peer, lines, expected) in FORWARDED_CASES {
        let found = client(ForwardedHeader::Forwarded, peer, FORWARDED, lines);
        assert_eq!(&found, expected, "Forwarded {lines:?} from {peer}");
    }
}

#[test]
fn the_header_that_is_not_the_configured_one_has_no_effect() {
    let found = client(ForwardedHeader::XForwardedFor, EDGE, FORWARDED, &["for=203.0.113.9"]);
    assert_eq!(found, EDGE);
    let found = client(ForwardedHeader::Forwarded, EDGE, X_FORWARDED_FOR, &["203.0.113.9"]);
    assert_eq!(found, EDGE);
}

#[test]
fn whatever_a_client_writes_the_proxy_has_the_last_word() {
    let spoofs: Vec<&str> = X_FORWARDED_FOR_CASES.iter().flat_map(|case| case.1).copied().collect();
    for spoof in spoofs {
        let appended = format!("{spoof}, 203.0.113.9");
        for lines in [&[&*appended][..], &[spoof, "203.0.113.9"]] {
            let found = client(ForwardedHeader::XForwardedFor, EDGE, X_FORWARDED_FOR, lines);
            assert_eq!(found, "203.0.113.9", "{lines:?}");
        }
    }
    for spoof in FORWARDED_CASES.iter().flat_map(|case| case.1) {
        let found = client(ForwardedHeader::Forwarded, EDGE, FORWARDED, &[spoof, "for=203.0.113.9"]);
        assert_eq!(found, "203.0.113.9", "{spoof}");
    }
}

#[test]
fn a_header_without_end_is_not_followed_to_its_end() {
    let long = vec!["10.0.0.7"; 100_000].join(", ");
    let found = client(
        ForwardedHeader::XForwardedFor,
        EDGE,
        X_FORWARDED_FOR,
        &[&format!("203.0.113.9, {long}"), &"7".repeat(20_000)],
    );
    assert_eq!(found, EDGE);
    let found = client(ForwardedHeader::XForwardedFor, EDGE, X_FORWARDED_FOR, &[&long]);
    assert_eq!(found, "10.0.0.7");
}

#[test]
fn a_proxy_is_trusted_by_the_address_of_its_connections() {
    // Who comes through a NAT64 is not the one that 10.0.0.0/8 means.
    for (peer, expected) in [("::ffff:10.0.0.1", "203.0.113.9"), ("64:ff9b::10.0.0.1", "64:ff9b::a00:1")] {
        let found = client(ForwardedHeader::XForwardedFor, peer, X_FORWARDED_FOR, &["203.0.113.9"]);
        assert_eq!(found, expected);
    }
}

#[test]
fn networks_are_read_with_and_without_a_length() {
    for (text, expected) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        (" ::1 ", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
    ] {
        assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
    }
    for wrong in ["", "10.0.0.0/33", "10.0.0", "proxy.example", "10.0.0.0-10.0.0.9"] {
        assert!(wrong.parse::<Network>().is_err(), "{wrong}");
    }
}
