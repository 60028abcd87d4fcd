//! A configuration of several files.

use super::*;

const DUMP: &str = "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok
# configuration file /etc/nginx/nginx.conf:
# Zugriffe: f\u{fc}r alle
http {
  include conf.d/*.conf;
  include /etc/nginx/missing.conf;
  include mime.types;
}

# configuration file /etc/nginx/conf.d/b.conf:
server { limit_req zone=a; }
# configuration file /etc/nginx/conf.d/a.conf:
limit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;
";

#[test]
fn what_nginx_prints_of_a_configuration_is_read_with_all_its_files() {
    let made = import(DUMP);
    assert_eq!(made.at("any", "/"), "a:1");
    let lost = made.lost();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let place = made.sources.place(lost[0].0);
    assert_eq!((place.name, place.line), ("/etc/nginx/nginx.conf", 4));
    assert!(lost[0].1.contains("/etc/nginx/missing.conf"));
    assert!(made.imported.to_yaml(&made.sources).contains("# /etc/nginx/conf.d/b.conf:1\n"));
    // A text of the standard input has no directory.
    let made = import("include conf.d/*.conf;");
    assert!(made.lost().iter().any(|(_, message)| message.contains("nginx -T")), "{:?}", made.lost());
}

#[test]
fn includes_are_followed_from_the_directory_of_the_main_file() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let main = write(
        "nginx.conf",
        b"events {}\nhttp { include conf.d/*.conf; include sites/*; include nowhere/*.conf; include x.conf; }\n",
    );
    write("conf.d/zone.conf", b"# caf\xe9 }\nlimit_req_zone $binary_remote_addr zone=a:1m rate=1r/m;\n");
    let site = write("sites/shop", b"server { include snippets/limit.conf; include sites/shop; }\n");
    write("snippets/limit.conf", b"limit_req zone=a;\n");
    let of = |paths: &[&std::path::Path]| {
        made(|sources| {
            paths.iter().for_each(|path| sources.read_file(path).unwrap());
        })
    };
    let from_main = of(&[&main]);
    assert_eq!(from_main.at("any", "/"), "a:1");
    let lost: Vec<(String, u64, &str)> = from_main
        .lost()
        .into_iter()
        .map(|(line, message)| {
            let place = from_main.sources.place(line);
            (place.name.rsplit('/').next().unwrap().to_owned(), place.line, message)
        })
        .collect();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert_eq!((&*lost[0].0, lost[0].1), ("nginx.conf", 2));
    assert!(lost[0].2.contains("nowhere") && lost[1].2.contains("x.conf"), "{lost:?}");
    assert!(lost[2].0 == "shop" && lost[2].2.contains("includes itself"), "{lost:?}");
    // A part alone, and a part that is named beside the file that includes it.
    assert_eq!(of(&[&site]).lost().len(), 2, "itself, and the zone of another file");
    assert_eq!(of(&[&main, &site]).imported.domains, from_main.imported.domains);
}

#[test]
fn includes_that_grow_without_end_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..30 {
        let text = format!("include {}.conf; include {}.conf; a b;\n", number + 1, number + 1);
        std::fs::write(directory.path().join(format!("{number}.conf")), text).unwrap();
    }
    let mut sources = Sources::default();
    sources.read_file(&directory.path().join("0.conf")).unwrap();
    let error = read(&mut sources).unwrap_err();
    assert!(error.message.contains("more than 200000 directives"), "{}", error.message);
}
