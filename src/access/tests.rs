use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn access(require: Option<RequireToken>, admin: bool, has_door: bool) -> Access {
    let admin = admin.then(|| AdminSecret::parse(SECRET).unwrap());
    Access::new(require, admin, has_door, Clock::start())
}

fn here() -> IpAddr {
    [127, 0, 0, 1].into()
}

fn with(token: Option<&[u8]>) -> Presented<'_> {
    Presented { token, certificate: None }
}

fn kind(admitted: Result<Grant, Problem>) -> Option<ProblemKind> {
    admitted.err().map(|problem| problem.kind)
}

#[test]
fn what_needs_a_token_depends_on_the_node() {
    let ask = |access: &Access, role, presented: Option<&str>| {
        kind(access.admit(Needs::Role(role), Door::Public, with(presented.map(str::as_bytes)), here()))
    };
    let open = access(None, false, false);
    for role in Role::ALL {
        assert_eq!(ask(&open, role, None), None);
        assert_eq!(ask(&open, role, Some("nonsense")), None, "nobody looks at it");
    }
    for guarded in [access(None, true, false), access(Some(RequireToken::Admin), true, false)] {
        assert_eq!(ask(&guarded, Role::Check, None), None);
        for role in [Role::Read, Role::Operate, Role::Admin] {
            assert_eq!(ask(&guarded, role, None), Some(ProblemKind::TokenNeeded));
            assert_eq!(ask(&guarded, role, Some("nonsense")), Some(ProblemKind::BadToken));
            assert_eq!(ask(&guarded, role, Some(SECRET)), None);
        }
        assert_eq!(kind(guarded.admit(Needs::Nothing, Door::Public, with(None), here())), None);
    }
    let all = access(Some(RequireToken::All), true, false);
    assert_eq!(ask(&all, Role::Check, None), Some(ProblemKind::TokenNeeded));
    assert_eq!(ask(&all, Role::Check, Some(SECRET)), None);
}

#[test]
fn administration_that_has_a_door_of_its_own_is_answered_there_only() {
    for (guarded, presented) in [(false, None), (true, Some(SECRET.as_bytes()))] {
        let access = access(None, guarded, true);
        for role in [Role::Read, Role::Operate, Role::Admin] {
            let public = access.admit(Needs::Role(role), Door::Public, with(presented), here());
            assert_eq!(kind(public), Some(ProblemKind::AdminElsewhere));
            assert_eq!(
                kind(access.admit(Needs::Role(role), Door::Administration, with(presented), here())),
                None
            );
        }
        for door in [Door::Public, Door::Administration] {
            assert_eq!(kind(access.admit(Needs::Role(Role::Check), door, with(None), here())), None);
        }
        assert_eq!(
            access.may_reset(&Grant::AdminToken).unwrap_err().kind,
            ProblemKind::AdminElsewhere,
            "over the Redis protocol, too"
        );
        assert!(!access.may_read(&Grant::AdminToken), "and neither is INFO told there");
    }
}

#[test]
fn the_node_is_shown_where_nothing_is_guarded_and_to_who_may_look_at_it() {
    assert!(access(None, false, false).may_read(&Grant::Nobody));
    let guarded = access(None, true, false);
    assert!(!guarded.may_read(&Grant::Nobody) && guarded.may_read(&Grant::AdminToken));
}

#[test]
fn what_may_be_a_token_is_not_called_bad_before_the_log_was_applied() {
    let access = access(Some(RequireToken::All), true, false);
    let token = format!("tg_{}_{}", "0".repeat(16), "f".repeat(64));
    let ask = |presented: &str| {
        let needs = Needs::Role(Role::Check);
        kind(access.admit(needs, Door::Public, with(Some(presented.as_bytes())), here()))
    };
    // What it had at its last start says nothing of what came later.
    access.publish(&Applied { index: 7, ..Applied::default() });
    for _ in 0..100 {
        assert_eq!(ask(&token), Some(ProblemKind::NotReady));
        assert_eq!(ask(SECRET), None);
    }
    assert!(access.may_be_to_come(token.as_bytes()) && !access.may_be_to_come(SECRET.as_bytes()));
    assert_eq!(ask("nonsense"), Some(ProblemKind::BadToken), "that is none, whatever the log says");
    access.publish_latest(&Applied { index: 9, ..Applied::default() });
    for _ in 0..9 {
        assert_eq!(ask(&token), Some(ProblemKind::BadToken), "nothing was counted before");
    }
    assert_eq!(ask(&token), Some(ProblemKind::TooManyFailures));
}

#[test]
fn a_caller_that_was_admitted_as_nobody_is_told_nothing_once_there_are_tokens() {
    let access = access(None, false, false);
    let grant = access.admit(Needs::Role(Role::Admin), Door::Public, with(None), here()).unwrap();
    let caller = Caller { grant, token: None, certificate: None, address: here(), door: Door::Public };
    assert!(caller.may(Role::Admin, &access).is_ok());
    let tokens = serde_json::json!({ "by_id": {}, "is_guarded": true, "version": 7 });
    let mut applied = Applied { index: 7, ..Applied::default() };
    applied.state.access.tokens = Arc::new(serde_json::from_value(tokens).unwrap());
    access.publish(&applied);
    for role in [Role::Read, Role::Admin] {
        assert_eq!(caller.may(role, &access).unwrap_err().kind, ProblemKind::TokenNeeded);
    }
}

#[test]
fn what_a_caller_has_presented_is_not_printed() {
    let token = Some(Box::from(SECRET.as_bytes()));
    let (address, door) = (here(), Door::Public);
    let caller = Caller { grant: Grant::AdminToken, token, certificate: None, address, door };
    let told = format!("{caller:?}");
    assert!(told.contains("AdminToken") && told.contains("127.0.0.1"), "{told}");
    // Neither as text nor as numbers of bytes.
    assert!(!told.contains("0123") && !told.contains("48, 49"), "{told}");
}

#[test]
fn who_has_tried_too_often_is_told_and_keeps_nobody_out_who_has_a_token() {
    let access = access(None, true, false);
    let tries: Vec<_> = (0..12).map(|_| kind(access.authenticate(b"nonsense", here()))).collect();
    assert!(tries[..10].iter().all(|kind| *kind == Some(ProblemKind::BadToken)), "{tries:?}");
    assert!(tries[10..].iter().all(|kind| *kind == Some(ProblemKind::TooManyFailures)), "{tries:?}");
    for address in [here(), [192, 0, 2, 1].into()] {
        for _ in 0..100 {
            assert_eq!(kind(access.authenticate(SECRET.as_bytes(), address)), None);
        }
    }
    assert_eq!(kind(access.authenticate(b"nonsense", here())), Some(ProblemKind::TooManyFailures));
}
