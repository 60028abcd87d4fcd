use super::*;
use crate::config::Span;

fn fault(options: Options) -> String {
    Settings::resolve(&options).unwrap_err().to_string()
}

fn joining(join: &str) -> Options {
    Options { join: Some(vec![join.to_owned()]), ..Options::default() }
}

#[test]
fn a_node_needs_no_options() {
    let settings = Settings::resolve(&Options::default()).unwrap();
    assert_eq!(settings.http.to_string(), "127.0.0.1:7800");
    assert_eq!(settings.peers.to_string(), "127.0.0.1:7803");
    assert_eq!(settings.check_timeout, Duration::from_millis(100));
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = Settings::resolve(&Options::default()).unwrap();
    assert_eq!((settings.max_memory, settings.stop_delay), (256 << 20, Duration::ZERO));
    assert_eq!(settings.cluster_name, "tidegate");
    let caps = settings.connection_caps(settings.connection_cap(None));
    assert_eq!((caps.all, caps.each_client), (8192, 4096));
    assert_eq!(Some(settings.workers), std::thread::available_parallelism().ok());
    assert!(!settings.insecure && !settings.insecure_no_cluster_key && !settings.proxy_protocol);
}

#[test]
fn faults_name_the_flag() {
    let none = Options::default;
    assert!(fault(Options { name: Some("a b".into()), ..none() }).contains("--name"));
    assert!(fault(Options { zone: Some("\n".into()), ..none() }).contains("--zone"));
    assert!(fault(Options { weight: Some(0), ..none() }).contains("--weight"));
    assert!(fault(Options { weight: Some(10_001), ..none() }).contains("from 1 to 10000 (--weight)"));
    assert!(fault(Options { cluster_name: Some(String::new()), ..none() }).contains("--cluster-name"));
    assert!(fault(Options { base_port: Some(65_534), ..none() }).contains("--base-port"));
    assert!(fault(Options { base_port: Some(0), ..none() }).contains("--base-port"));
    assert!(fault(Options { workers: Some(0), ..none() }).contains("--workers"));
    assert!(fault(Options { bootstrap_expect: Some(0), ..none() }).contains("--bootstrap-expect"));
    assert!(fault(Options { cluster_key: Some("short".into()), ..none() }).contains("--cluster-key"));
    assert!(fault(Options { cluster_key_file: Some("/nowhere".into()), ..none() }).contains("/nowhere"));
    assert!(fault(Options { ipv6_prefix: Some(129), ..none() }).contains("--ipv6-prefix"));
    assert!(fault(Options { ipv6_prefix: Some(0), ..none() }).contains("--ipv6-prefix"));
    for host in ["", "http://a.example", "a.example:80", "*a.example"] {
        let options = Options { allowed_hosts: Some(vec![host.to_owned()]), ..none() };
        assert!(fault(options).contains("--allowed-hosts"), "{host}");
    }
    assert!(fault(Options { proxy_protocol: Some(true), ..none() }).contains("--trusted-proxies"));
    let never = Some(Span(Duration::ZERO));
    assert!(fault(Options { check_timeout: never, ..none() }).contains("--check-timeout"));
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn administration_is_not_open_beyond_loopback_unless_that_is_said() {
    let key = Some("0123456789abcdef".into());
    let open = Options { listen: Some([10, 0, 0, 1].into()), cluster_key: key, ..Options::default() };
    let said = fault(open.clone());
    for word in ["openssl rand -hex 32", "--admin-token-file", "--admin-listen 127.0.0.1:", "--insecure"] {
        assert!(said.contains(word), "{said}");
    }
    let elsewhere = |address: &str| Some(address.parse().unwrap());
    for fine in [
        Options { admin_token: Some(TOKEN.into()), ..open.clone() },
        Options { require_token: Some(RequireToken::Admin), ..open.clone() },
        Options { require_token: Some(RequireToken::All), ..open.clone() },
        Options { admin_listen: elsewhere("127.0.0.1:7804"), ..open.clone() },
        Options { admin_listen: elsewhere("[::1]:7804"), ..open.clone() },
        Options { insecure: Some(true), ..open.clone() },
        Options { insecure: Some(true), cluster_key: None, ..open.clone() },
    ] {
        assert!(Settings::resolve(&fine).is_ok(), "{fine:?}");
    }
    let admin_beyond = Options { admin_listen: elsewhere("10.0.0.1:7804"), ..open.clone() };
    assert!(fault(admin_beyond).contains("10.0.0.1:7804 is not a loopback address"));
    // Checks alone on loopback do not help.
    let only_admin = Options { admin_listen: elsewhere("10.0.0.1:7804"), ..Options::default() };
    assert!(fault(only_admin).contains("--insecure"));
    for bad in ["short", "with a blank in it, but long enough for one"] {
        let said = fault(Options { admin_token: Some(bad.into()), ..Options::default() });
        assert!(said.contains("TIDEGATE_ADMIN_TOKEN") && !said.contains(bad), "{said}");
    }
}

#[test]
fn a_node_that_the_others_could_not_reach_is_told_so() {
    assert!(fault(joining("10.0.0.1:7803")).contains("--listen"));
    assert!(fault(joining("node-1")).contains("--listen"));
    for near in ["127.0.0.1:7813", "localhost:7813", "[::1]:7813", "::1", "127.0.0.1"] {
        assert!(Settings::resolve(&joining(near)).is_ok(), "{near}");
    }
    let key = Some("0123456789abcdef".into());
    let token = Some(TOKEN.into());
    let told = Options {
        listen: Some([0, 0, 0, 0].into()),
        cluster_key: key,
        admin_token: token,
        ..joining("10.0.0.1:7803")
    };
    assert!(Settings::resolve(&told).is_ok());
}

#[test]
fn services_are_joined_by_their_prefix_and_other_spellings_are_named() {
    for service in ["dnssrv+_tidegate._udp.localhost", "dnssrv+_peers._udp.cluster.localhost."] {
        let settings = Settings::resolve(&joining(service)).unwrap();
        assert!(settings.allowed_hosts("n1", "m".to_owned()).allows("127.0.0.1"), "{service}");
    }
    assert!(fault(joining("dnssrv+_tidegate._udp.example.com")).contains("--listen"));
    for wrong in [
        "srv:_tidegate._udp.example.com",
        "dns+srv://_tidegate._udp.example.com",
        "dnssrvnoa+_tidegate._udp.example.com",
        "_tidegate._udp.example.com",
        "dnssrv+_tidegate._udp.example.com:7803",
        "dnssrv+",
        "dnssrv+_tidegate",
        "dnssrv+a..b",
        "http://node-1:7803",
    ] {
        let said = fault(joining(wrong));
        assert!(said.contains("dnssrv+_tidegate._udp.example.com (--join)"), "{wrong}: {said}");
    }
}

#[test]
fn nobody_tells_the_others_an_address_at_which_they_cannot_reach_it() {
    let key = || Some("0123456789abcdef".into());
    let advertise = |address: &str, join: &str| Options {
        listen: Some([0, 0, 0, 0].into()),
        advertise: Some(address.parse().unwrap()),
        cluster_key: key(),
        admin_token: Some(TOKEN.into()),
        ..joining(join)
    };
    for nowhere in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1"] {
        assert!(fault(advertise(nowhere, "10.0.0.2")).contains("--advertise"), "{nowhere}");
    }
    assert!(fault(advertise("127.0.0.1", "10.0.0.2:7803")).contains("10.0.0.2:7803 cannot"));
    assert!(Settings::resolve(&advertise("127.0.0.1", "127.0.0.2:7803")).is_ok());
    assert!(Settings::resolve(&advertise("10.0.0.1", "node-2")).is_ok());
    // Of a name that is known when its address is.
    let settings = Settings::resolve(&advertise("lo", "10.0.0.2")).unwrap();
    assert!(settings.may_advertise([127, 0, 0, 1].into()).is_err());
    assert!(settings.may_advertise([10, 0, 0, 1].into()).is_ok());
    let without_key = Options { advertise: Some("eth0".parse().unwrap()), ..Options::default() };
    let said = Settings::resolve(&without_key).unwrap().may_advertise([10, 0, 0, 1].into());
    assert!(said.unwrap_err().to_string().contains("--cluster-key-file"));
}

#[test]
fn without_a_cluster_key_nobody_listens_beyond_loopback_who_does_not_say_so() {
    let listen = |address: [u8; 4]| Options { listen: Some(address.into()), ..Options::default() };
    for open in [listen([0, 0, 0, 0]), listen([10, 0, 0, 1])] {
        let said = fault(open.clone());
        for word in ["openssl rand -hex 32", "--cluster-key-file", "--insecure-no-cluster-key"] {
            assert!(said.contains(word), "{said}");
        }
        let guarded = Options { admin_token: Some(TOKEN.into()), ..open };
        let keyed = Options { cluster_key: Some("0123456789abcdef".into()), ..guarded.clone() };
        assert!(Settings::resolve(&keyed).is_ok());
        let insecure = Options { insecure_no_cluster_key: Some(true), ..guarded };
        assert!(Settings::resolve(&insecure).is_ok());
    }
    assert!(Settings::resolve(&listen([127, 0, 0, 2])).is_ok());
    // The others would be told of it.
    let advertised = Options { advertise: Some("10.0.0.1".parse().unwrap()), ..Options::default() };
    assert!(fault(advertised).contains("10.0.0.1 is not a loopback address"));
}

#[test]
fn connections_leave_files_for_the_rest() {
    let settings = Settings::resolve(&Options::default()).unwrap();
    assert_eq!(settings.connection_cap(Some(1_024)), 896);
    assert_eq!(settings.connection_cap(Some(1_000_000)), DEFAULT_MAX_CONNECTIONS);
    assert_eq!(settings.connection_cap(None), DEFAULT_MAX_CONNECTIONS);
}
