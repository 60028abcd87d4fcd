//! Texts that nobody would write: no panic, and each error has its place in the text.

use proptest::prelude::*;

use super::*;

#[test]
fn a_file_that_grows_while_it_is_read_is_refused() {
    for deep in ["[", "{a: ", "- "] {
        assert!(rules(&deep.repeat(100_000)).is_err());
        let inside =
            format!("rules: [{{name: r, key: [], limit: 1/1s, when: {{a: {}}}}}]", deep.repeat(20_000));
        assert!(rules(&inside).is_err());
    }
    let mut bomb = "x0: &x0 [a, a]\n".to_owned();
    (1..40).for_each(|n| bomb.push_str(&format!("x{n}: &x{n} [*x{0}, *x{0}]\n", n - 1)));
    assert!(rules(&bomb).is_err());
    let inside = "rules:\n- name: r\n  key: []\n  limit: 1/1s\n  when:\n    a: &x0 [a, a]\n".to_owned();
    let inside = (1..40).fold(inside, |text, n| format!("{text}    a{n}: &x{n} [*x{0}, *x{0}]\n", n - 1));
    assert!(rules(&inside).is_err());
}

/// Whatever is wrong is shown within the text: never beyond its end, never inside of a letter.
fn assert_places(text: &str) {
    for error in rules(text).err().unwrap_or_default() {
        assert!(text.get(error.offset..error.offset + error.length).is_some(), "{error:?} in {text:?}");
    }
}

/// What rule files are made of, right and wrong.
fn piece() -> BoxedStrategy<String> {
    let words: Vec<String> = [
        "rules:",
        "domain: ",
        "name: ",
        "when: ",
        "key: ",
        "limit: ",
        "burst: ",
        "overrides:",
        "unmatched: ",
        "all_or_nothing: ",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "? ",
        "\"",
        "'",
        "#",
        " #",
        "|\n",
        ">\n",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "!!int ",
        "!x ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "é",
        "😀",
        "\u{feff}",
        "5/1m",
        "7",
        "-1",
        "1.5",
        "0x10",
        "true",
        "null",
        "~",
        ".inf",
        "ip",
        "r",
        "10.0.0.0/8",
        "\r\n",
        "\u{85}",
        "\0",
    ]
    .map(str::to_owned)
    .to_vec();
    proptest::sample::select(words).boxed()
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,200}") {
        assert_places(&text);
    }

    #[test]
    fn arbitrary_pieces_of_yaml_never_panic(pieces in proptest::collection::vec(piece(), 0..40)) {
        assert_places(&pieces.concat());
    }

    #[test]
    fn arbitrary_damage_to_a_good_file_never_panics(
        at in 0..EXAMPLE.len(), cut in 0usize..40, put in prop_oneof![piece(), ".{0,4}".boxed()],
    ) {
        let end = (at + cut).min(EXAMPLE.len());
        assert_places(&format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end..]));
    }

    #[test]
    fn arbitrary_rules_never_panic_and_errors_point_into_the_text(
        name in ".{0,10}", value in ".{0,12}", key in "[a-zé]{0,5}", limit in "[0-9]{0,20}/[0-9]{0,20}[a-z]{0,5}",
        burst in any::<u64>(),
    ) {
        let text = format!(
            "rules:\n- name: {name:?}\n  when: {{ path: {value:?} }}\n  key: [{key:?}]\n  limit: {limit:?}\n  burst: {burst}\n"
        );
        match rules(&text) {
            Ok(rules) => { matched(&rules, "default", &[("path", &value), (&key, "x")]); }
            Err(_) => assert_places(&text),
        }
    }

    #[test]
    fn arbitrary_limits_are_read_or_refused(text in "[0-9]{0,21}/?[0-9]{0,21}[a-z]{0,6}", burst in any::<Option<u64>>()) {
        if let Ok(limit) = Limit::parse(&text, burst, Algorithm::TokenBucket) {
            let again = Limit::parse(&limit.to_string(), Some(limit.burst_size()), Algorithm::TokenBucket);
            prop_assert_eq!(again.unwrap(), limit);
        }
    }
}
