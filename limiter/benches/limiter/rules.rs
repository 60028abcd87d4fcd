//! What rules cost: compiling a file of them, and finding those that are about a request.

use std::{fmt::Write as _, hint::black_box, time::Instant};

use smallvec::SmallVec;
use tidegate_limiter::{cluster::Rules, rules::HashSecret};

const FEW: usize = 10;
const MANY: usize = 10_000;
const CHECKS: usize = 200_000;
const ROUNDS: usize = 9;

/// The `when` of a rule.
type When = fn(usize) -> String;

/// How the rules of a file tell requests apart.
const KINDS: [(&str, When); 4] = [
    ("by path", |n| format!("path: /api/v1/things/{n}")),
    ("by method and prefix", |n| format!("method: POST, path: /api/v1/{n:04x}/*")),
    ("by network", |n| format!("ip: 10.{}.{}.0/24", n / 256, n % 256)),
    ("by tier and customer", |n| format!("tier: [gold, silver], customer: c{n}")),
];

fn file(count: usize, when: When) -> String {
    let mut text = "rules:\n".to_owned();
    for number in 0..count {
        let _ = writeln!(
            text,
            "  - {{ name: r{number}, when: {{ {} }}, key: [ip], limit: {}/1m }}",
            when(number),
            number % 90 + 10
        );
    }
    text
}

/// A request that one rule is about.
fn request(number: usize, kind: &str) -> Vec<(&'static str, String)> {
    let path = if kind == "by path" {
        format!("/api/v1/things/{number}")
    } else {
        format!("/api/v1/{number:04x}/x")
    };
    vec![
        ("ip", format!("10.{}.{}.7", number / 256, number % 256)),
        ("method", "POST".to_owned()),
        ("path", path),
        ("tier", "gold".to_owned()),
        ("customer", format!("c{number}")),
    ]
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn match_once(rules: &Rules, requests: &[Vec<(&'static str, String)>]) -> f64 {
    let took = seconds(|| {
        let mut all = 0;
        for request in requests.iter().cycle().take(CHECKS) {
            let mut found = SmallVec::new();
            black_box(rules.matching("default", black_box(&request[..]), &mut found));
            all += found.len();
        }
        assert_eq!(all, CHECKS, "each request has its rule");
    });
    took / CHECKS as f64 * 1e9
}

pub(crate) fn print() {
    let secret = HashSecret::new([7; 16]);
    println!(
        "rules: compiling {MANY}, and matching a request against them (target: below 2 x that against {FEW})"
    );
    for (name, when) in KINDS {
        let [few, many] = [FEW, MANY].map(|count| file(count, when));
        let compile =
            median((0..3).map(|_| seconds(|| drop(Rules::from_yaml(&many, &secret).unwrap()))).collect());
        let [few, many] = [few, many].map(|text| Rules::from_yaml(&text, &secret).unwrap());
        // As many requests for the one as for the other, so that both meet them in memory alike. With ten rules all is at
        // hand; with many, a rule that was met a moment ago is, and one of all that come in turn is not.
        let requests =
            |rules: usize| -> Vec<_> { (0..MANY).map(|number| request(number % rules, name)).collect() };
        let (to_ten, to_all) = (requests(FEW), requests(MANY));
        let rounds: Vec<[f64; 3]> = (0..ROUNDS)
            .map(|_| [match_once(&few, &to_ten), match_once(&many, &to_ten), match_once(&many, &to_all)])
            .collect();
        let of = |place: usize| median(rounds.iter().map(|round| round[place]).collect());
        let ratio = |place: usize| median(rounds.iter().map(|round| round[place] / round[0]).collect());
        println!(
            "  {name:22} compile {:4.0} ms   match {:4.0} ns with {FEW}; with {MANY}: the same ten {:4.0} ns, {:4.2} x; all in turn {:4.0} ns, {:4.2} x",
            compile * 1e3,
            of(0),
            of(1),
            ratio(1),
            of(2),
            ratio(2),
        );
    }
    println!();
}
