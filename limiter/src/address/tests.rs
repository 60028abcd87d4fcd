use proptest::prelude::*;

use super::*;
use crate::{HashSecret, Rules};
use smallvec::SmallVec;

/// Each line is one host.
const SPELLINGS: &[&[&str]] = &[
    &[
        "198.51.100.7",
        "198.51.100.7:1001",
        "198.51.100.7:1002",
        "\"198.51.100.7\"",
        "\"198.51.100.7:80\"",
        " 198.51.100.7\t",
        "::ffff:198.51.100.7",
        "::FFFF:c633:6407",
        "0:0:0:0:0:ffff:198.51.100.7",
        "[::ffff:198.51.100.7]:443",
        "64:ff9b::198.51.100.7",
        "64:FF9B::c633:6407",
        "0064:ff9b:0:0:0:0:c633:6407",
        "[64:ff9b::c633:6407]:80",
    ],
    &[
        "2001:db8::5",
        "2001:DB8::5",
        "2001:0db8:0000:0000:0000:0000:0000:0005",
        "2001:db8:0:0:0:0:0:5",
        "2001:db8::0.0.0.5",
        "[2001:db8::5]",
        "[2001:db8::5]:80",
        "\"[2001:db8::5]:47011\"",
        "2001:db8::5%eth0",
        "[2001:db8::5%25en1]:80",
    ],
];

const NO_ADDRESSES: &[&str] = &[
    "",
    " ",
    "unknown",
    "_hidden",
    "localhost",
    "198.51.100",
    "198.51.100.256",
    "198.51.100.07",
    "0198.51.100.7",
    "198.51.100.7.",
    "198.51.100.7:",
    "198.51.100.7:65536",
    "198.51.100.7:+80",
    "198.51.100.7:80:90",
    "[198.51.100.7]",
    "0x7f.1",
    "2130706433",
    "198.51.100.7/32",
    "2001:db8::5::6",
    "2001:db8::5%",
    "2001:db8::00005",
    "[2001:db8::5",
    "2001:db8::5]",
    "[2001:db8::5]80",
    "[]",
    "\"198.51.100.7",
    "198.51.100.7\"",
    "198.51.100.7, 10.0.0.1",
    "198.51.100.7 10.0.0.1",
    "for=198.51.100.7",
    "198.51.100.7%eth0",
    "١٩٨.51.100.7",
];

fn host(text: &str) -> Option<String> {
    Address::parse(text).map(|address| address.to_string())
}

#[test]
fn one_host_is_one_address_however_it_is_written() {
    for spellings in SPELLINGS {
        for spelling in *spellings {
            assert_eq!(host(spelling).as_deref(), Some(spellings[0]), "{spelling:?}");
        }
    }
    for other in NO_ADDRESSES {
        assert_eq!(host(other), None, "{other:?}");
    }
    // What only looks like an embedded address: anybody can have one of these.
    for own in [
        "64:ff9b:1::c633:6407",
        "2002:c633:6407::1",
        "2001::c633:6407",
        "::c633:6407",
        "64:ff9b:0:0:1:0:c633:6407",
    ] {
        assert!(Address::parse(own).unwrap().host().is_ipv6(), "{own}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_address_or_none_and_the_text_of_an_address_is_itself(text in "[0-9a-f:.%\"\\[\\] x]{0,24}", bits: u128) {
        if let Some(address) = Address::parse(&text) {
            prop_assert_eq!(Address::parse(&address.to_string()).map(Address::host), Some(address.host()));
        }
        let v6 = Ipv6Addr::from_bits(bits);
        let longest = v6.segments().map(|group| format!("{group:04X}")).join(":");
        for spelling in [v6.to_string(), longest.clone(), format!("[{longest}]:1"), format!("\"{v6}\"")] {
            prop_assert_eq!(Address::parse(&spelling), Some(IpAddr::V6(v6).into()), "{}", spelling);
        }
    }
}

/// Whether a rule is about an address.
fn is_about(pattern: &str, value: &str) -> bool {
    let rule = |pattern: String| {
        let pattern = serde_json::to_string(&pattern).unwrap();
        format!("rules: [{{ name: r, key: [], limit: 1/1s, when: {{ ip: {pattern} }} }}]")
    };
    let text = rule(pattern.to_owned());
    let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap();
    let mut found = SmallVec::new();
    rules.matching("default", &[("ip", value)], &mut found);
    let found = !found.is_empty();
    // The opposite is not found by the index.
    let text = rule(format!("!{pattern}"));
    let rules = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap();
    let mut opposite = SmallVec::new();
    rules.matching("default", &[("ip", value)], &mut opposite);
    assert_ne!(found, !opposite.is_empty(), "{pattern} {value}");
    found
}

#[test]
fn a_pattern_of_an_address_is_compared_as_one() {
    for spellings in SPELLINGS {
        for pattern in *spellings {
            for value in *spellings {
                assert!(is_about(pattern, value), "{pattern} {value}");
            }
            assert!(!is_about(pattern, "198.51.100.8") && !is_about(pattern, "2001:db8::6"), "{pattern}");
        }
    }
    for (pattern, about, not) in [
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ("10.1.2.3/8", "::ffff:10.0.0.1", "11.0.0.1"),
        ("10.1.*", "[::ffff:10.1.9.9]:80", "10.2.0.1"),
        ("10.*", "10.200.0.1:80", "100.0.0.1"),
        ("2001:DB8:*", "2001:0db8:0:1::1", "2001:db9::1"),
        ("64:ff9b::c633:6400/120", "198.51.100.9", "198.51.101.9"),
        ("64:ff9b::/96", "64:ff9b::10.0.0.1", "10.0.0.1"),
        ("10.0.0.0/8", "64:ff9b::10.0.0.1", "64:ff9b::11.0.0.1"),
        ("2001:db8::/32", "2001:DB8:1:2::9", "2001:db9::"),
        ("::/0", "2001:db8::1", "10.0.0.1"),
    ] {
        assert!(is_about(pattern, about) && !is_about(pattern, not), "{pattern}");
    }
}

/// Whether both addresses have one bucket.
fn are_one(rules: &Rules, one: &str, other: &str) -> bool {
    let key = |address: &str| {
        let mut found = SmallVec::new();
        rules.matching("default", &[("ip", address)], &mut found);
        found[0].key
    };
    key(one) == key(other)
}

fn rules(ip_prefix: &str, of_the_node: IpPrefix) -> Rules {
    let text = format!("rules: [{{ name: r, key: [ip], limit: 1/1s{ip_prefix} }}]");
    let secret = HashSecret::new([1; 16]);
    Rules::empty(&secret).with_ip_prefix(of_the_node).with_domain("default", &text, &secret).unwrap()
}

proptest! {
    #[test]
    fn as_many_bits_count_as_the_rule_says_or_else_the_node(
        v4 in 1..=32_u8, v6 in 1..=128_u8, bits: u128, by_rule: bool, flipped in 0..128_u32,
    ) {
        let prefix = IpPrefix::new(v4, v6).unwrap();
        let rules = match by_rule {
            true => rules(&format!(", ip_prefix: {{ v4: {v4}, v6: {v6} }}"), IpPrefix::default()),
            false => rules("", prefix),
        };
        // Of 2000::/3, as all that is given to anybody.
        let bits = bits >> 3 | 1 << 125;
        let flipped = flipped.max(3);
        let (one, other) = (Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(bits ^ 1 << (127 - flipped)));
        prop_assert_eq!(are_one(&rules, &one.to_string(), &other.to_string()), flipped >= u32::from(v6));
        let (bits, flipped) = (bits as u32, flipped % 32);
        let (one, other) = (Ipv4Addr::from_bits(bits), Ipv4Addr::from_bits(bits ^ 1 << (31 - flipped)));
        prop_assert_eq!(are_one(&rules, &one.to_string(), &other.to_string()), flipped >= u32::from(v4));
        let translated = format!("[64:ff9b::{other}]:7");
        prop_assert!(are_one(&rules, &other.to_string(), &translated));
    }
}

#[test]
fn a_prefix_that_cannot_be_is_refused_where_it_stands() {
    for (field, word) in [
        ("ip_prefix: { v4: 0 }", "1 to 32"),
        ("ip_prefix: { v4: 33 }", "1 to 32"),
        ("ip_prefix: { v6: 129 }", "1 to 128"),
        ("ip_prefix: { v6: 1000000 }", "1 to 128"),
        ("ip_prefix: { v6: -1 }", "a whole number"),
        ("ip_prefix: 24", "a map"),
        ("ip_prefix: { v5: 24 }", "no field"),
    ] {
        let text = format!("rules: [{{ name: r, key: [ip], limit: 1/1s, {field} }}]");
        let errors = Rules::from_yaml(&text, &HashSecret::new([1; 16])).unwrap_err();
        assert!(errors[0].message.contains(word) && errors[0].line == 1, "{field}: {errors:?}");
    }
    let text = "rules: [{ name: r, key: [user], limit: 1/1s, ip_prefix: { v6: 48 } }]";
    let errors = Rules::from_yaml(text, &HashSecret::new([1; 16])).unwrap_err();
    assert!(errors[0].message.contains("no `ip`"), "{errors:?}");
}

#[test]
fn a_prefix_of_a_rule_is_told_and_is_a_change() {
    let described = |field: &str| rules(field, IpPrefix::default()).describe("default");
    let (before, after) = (described(""), described(", ip_prefix: { v6: 56, v4: 24 }"));
    assert_eq!(
        serde_json::to_value(&after.rules[0]).unwrap()["ip_prefix"],
        serde_json::json!({ "v4": 24, "v6": 56 })
    );
    assert_eq!(serde_json::to_value(&before.rules[0]).unwrap()["ip_prefix"], serde_json::Value::Null);
    let diff = crate::cluster::RulesDiff::between(&before, &after);
    let change = &diff.changed[0].fields[0];
    assert_eq!((&*change.field, change.to.as_deref()), ("ip_prefix", Some("{ v4: 24, v6: 56 }")));
}

#[test]
fn a_network_is_no_zone() {
    assert!(Address::parse("fe80::1%eth0").is_some() && Address::parse("fe80::1%1").is_some());
    assert_eq!(Address::parse("fe80::1%1/64"), None);
}

#[test]
fn a_beginning_is_one_of_some_address() {
    for text in [
        "1",
        "10.",
        "10.1",
        "10.1.2.3",
        "2001:DB8",
        "2001:db8:0:",
        "2001:d",
        "::1",
        ":",
        "fe80",
        "FE8",
        "64:ff9b:1:",
        "ab",
        "",
    ] {
        assert!(can_begin(text), "{text}");
    }
    for text in [
        "10.300.",
        "10.300",
        "010.",
        "10.07",
        "10.1.2.3.",
        "local",
        "10..1",
        ".1",
        "2001:xyz",
        // An address of IPv4, and texts that no address has in its shortest form.
        "::ffff:10.",
        "64:ff9b::",
        "[2001:",
        "2001:0d",
        "2001:db8:00",
        "0db8",
        "2001::1::",
        "2001:::",
        "20011",
        ":1",
        "host.",
        "10-",
    ] {
        assert!(!can_begin(text), "{text}");
    }
}
