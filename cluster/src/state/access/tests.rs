use super::*;
use crate::{
    ids::Leadership,
    state::{
        audit::Actor,
        command::{Command, Expected, Extent, RuleWrite},
        machine::Replicated,
        token::{MintedToken, Token, TokenId},
    },
};

const LEADERSHIP: Leadership = Leadership { term: 1, leader: 1 };

/// A log, one entry after the other.
#[derive(Default)]
struct Log {
    state: Replicated,
    index: u64,
}

impl Log {
    fn act(&mut self, identity: &Identity, act: Act) -> Outcome {
        let key = self.index + 1;
        self.act_once(identity, act, key)
    }

    fn act_once(&mut self, identity: &Identity, act: Act, key: u64) -> Outcome {
        self.index += 1;
        let actor = Actor { identity: identity.clone(), address: "192.0.2.1".to_owned() };
        let action = Action { actor, node: "n1".to_owned(), at_ms: 5, key, act };
        self.state.apply(self.index, LEADERSHIP, Command::By(Box::new(action)))
    }

    fn make(&mut self, by: &Identity, name: &str, roles: &[Role]) -> Result<MintedToken, ActError> {
        let minted = MintedToken::new();
        let act = Act::MakeToken { id: minted.id, token: token(&minted, name, roles) };
        match self.act(by, act) {
            Outcome::Done => Ok(minted),
            Outcome::NotDone(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn actions(&self) -> Vec<(String, bool)> {
        let entries = self.state.access.audit.entries();
        entries.map(|entry| (entry.action.clone(), entry.error.is_none())).collect()
    }
}

fn token(minted: &MintedToken, name: &str, roles: &[Role]) -> Token {
    Token {
        name: name.to_owned(),
        hash: minted.hash,
        roles: roles.iter().copied().collect(),
        domains: Vec::new(),
        created_ms: 5,
        expires_ms: None,
        created_by: String::new(),
    }
}

fn of(minted: &MintedToken, name: &str) -> Identity {
    Identity::Token { id: minted.id, name: name.to_owned() }
}

fn write(text: &str, author: &str) -> Act {
    Act::Write(RuleWrite {
        domain: "d".into(),
        text: text.into(),
        origin: Origin::Apply,
        expected: Expected::Any,
        key: text.to_owned(),
        author: author.to_owned(),
        message: String::new(),
        node: "n1".to_owned(),
        at_ms: 5,
        extent: Extent::default(),
    })
}

#[test]
fn as_long_as_there_was_no_token_anybody_may_and_then_nobody_without_one() {
    let mut log = Log::default();
    assert!(matches!(log.act(&Identity::Nobody, write("a", "ada")), Outcome::Written(_)));
    assert_eq!(
        log.state.domains["d"].current().author,
        "ada",
        "nothing was proved, so what was claimed stands"
    );
    assert_eq!(log.make(&Identity::Nobody, "shop", &[Role::Check]).err(), Some(ActError::NoAdminLeft));
    let admin = log.make(&Identity::Nobody, "ops", &[Role::Admin]).unwrap();
    assert!(matches!(
        log.act(&Identity::Nobody, write("b", "ada")),
        Outcome::NotDone(ActError::NotAllowed(_))
    ));
    assert!(matches!(log.act(&of(&admin, "ops"), write("c", "ada")), Outcome::Written(_)));
    assert_eq!(log.state.domains["d"].current().author, "token ops", "not what was claimed");
    // The node's own secret is judged by the node.
    assert!(matches!(log.act(&Identity::AdminToken, write("d", "")), Outcome::Written(_)));
    assert_eq!(log.state.domains["d"].current().author, "admin token of n1");
}

#[test]
fn a_token_that_was_revoked_changes_nothing_whichever_node_takes_it() {
    let mut log = Log::default();
    let admin = log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
    let other = log.make(&of(&admin, "ops"), "ci", &[Role::Admin]).unwrap();
    assert_eq!(log.act(&of(&admin, "ops"), Act::RevokeToken { id: other.id }), Outcome::Done);
    let late = log.act(&of(&other, "ci"), write("a", ""));
    assert!(
        matches!(&late, Outcome::NotDone(ActError::NotAllowed(why)) if why.contains("revoked")),
        "{late:?}"
    );
    assert!(log.state.domains.is_empty());
    assert_eq!(
        log.act(&of(&admin, "ops"), Act::RevokeToken { id: other.id }),
        Outcome::NotDone(ActError::NoSuchToken)
    );
    assert_eq!(
        log.act(&of(&admin, "ops"), Act::RevokeToken { id: admin.id }),
        Outcome::NotDone(ActError::NoAdminLeft),
        "nobody locks everybody out by mistake"
    );
    assert_eq!(log.act(&Identity::AdminToken, Act::RevokeToken { id: admin.id }), Outcome::Done);
    assert!(log.state.access.tokens.is_empty() && log.state.access.tokens.is_guarded());
    assert!(
        matches!(log.act(&Identity::Nobody, write("b", "")), Outcome::NotDone(_)),
        "it does not open again"
    );
}

#[test]
fn a_token_that_has_expired_is_not_one_that_is_left() {
    // What is done here is done at the millisecond 5.
    for (end, is_left) in [(Some(4), false), (Some(5), false), (Some(6), true), (None, true)] {
        let mut log = Log::default();
        let admin = log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
        let minted = MintedToken::new();
        let other = Token { expires_ms: end, ..token(&minted, "other", &[Role::Admin]) };
        let made = log.act(&Identity::AdminToken, Act::MakeToken { id: minted.id, token: other });
        assert_eq!(made, Outcome::Done);
        let revoked = log.act(&of(&admin, "ops"), Act::RevokeToken { id: admin.id });
        let expected = if is_left { Outcome::Done } else { Outcome::NotDone(ActError::NoAdminLeft) };
        assert_eq!(revoked, expected, "{end:?}");
    }
}

#[test]
fn each_act_needs_its_role() {
    let start = crate::ids::NodeStart { node: 1, incarnation: 1 };
    let name = || "n1".to_owned();
    let id = TokenId::parse("00000000000000f1").unwrap();
    let acts = [
        (write("a", ""), Role::Admin),
        (Act::MakeToken { id, token: token(&MintedToken::new(), "x", &[Role::Check]) }, Role::Admin),
        (Act::RevokeToken { id }, Role::Admin),
        (Act::Drain { start, on: true, name: name() }, Role::Operate),
        (Act::Evict { node: 1, name: name() }, Role::Operate),
        (Act::NoteReset { domain: name(), detail: name() }, Role::Operate),
    ];
    for role in Role::ALL {
        for (act, needed) in &acts {
            let mut log = Log::default();
            let holder = log.make(&Identity::AdminToken, "one", &[role]).unwrap();
            let outcome = log.act(&of(&holder, "one"), act.clone());
            let is_refused = matches!(outcome, Outcome::NotDone(ActError::NotAllowed(_)));
            let suffices = role == Role::Admin || role == *needed;
            assert_eq!(!is_refused, suffices, "{role:?} {act:?}: {outcome:?}");
        }
    }
}

#[test]
fn what_comes_again_is_done_once_and_noted_once() {
    let mut log = Log::default();
    let minted = MintedToken::new();
    let make = Act::MakeToken { id: minted.id, token: token(&minted, "ops", &[Role::Admin]) };
    for _ in 0..2 {
        assert_eq!(log.act_once(&Identity::AdminToken, make.clone(), 77), Outcome::Done);
    }
    for _ in 0..2 {
        let revoke = Act::RevokeToken { id: minted.id };
        assert_eq!(log.act_once(&Identity::AdminToken, revoke, 78), Outcome::Done);
        assert!(matches!(log.act_once(&Identity::AdminToken, write("a", ""), 79), Outcome::Written(_)));
    }
    let noted = ["token.create", "token.revoke", "rules.apply"].map(|action| (action.to_owned(), true));
    assert_eq!(log.actions(), noted);
    let revoked = log.state.access.audit.entries().nth(1).unwrap();
    assert_eq!((&*revoked.target, revoked.index), ("ops", 3), "by its name, though it is gone");
}

#[test]
fn tokens_and_the_audit_trail_have_an_end() {
    let mut log = Log::default();
    log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
    assert_eq!(
        log.make(&Identity::AdminToken, "ops", &[Role::Check]).err(),
        Some(ActError::NameTaken("ops".to_owned()))
    );
    for number in 1..crate::state::MAX_TOKENS {
        log.make(&Identity::AdminToken, &format!("t{number}"), &[Role::Check]).unwrap();
    }
    assert_eq!(log.make(&Identity::AdminToken, "more", &[Role::Check]).err(), Some(ActError::Full));
    for _ in 0..1_500 {
        let reset = Act::NoteReset { domain: "d".to_owned(), detail: "ä".repeat(1_000) };
        log.act(&Identity::AdminToken, reset);
    }
    let entries: Vec<_> = log.state.access.audit.entries().collect();
    let bytes: usize = entries.iter().map(|entry| entry.detail.len()).sum();
    assert!(entries.len() <= 1_000 && bytes <= 256 << 10, "{} entries, {bytes} bytes", entries.len());
    assert!(entries.len() > 500 && entries.last().unwrap().detail.ends_with('…'));
    // Whoever has proved nothing cannot push out what was done.
    let before = log.state.access.audit.clone();
    assert!(matches!(log.act(&Identity::Nobody, write("a", "")), Outcome::NotDone(_)));
    assert_eq!(log.state.access.audit, before);
}

#[test]
fn resets_have_a_part_of_the_audit_trail_and_push_out_nothing_else() {
    let mut log = Log::default();
    log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
    let operator = log.make(&Identity::AdminToken, "operator", &[Role::Operate]).unwrap();
    for number in 0..600 {
        log.make(&Identity::AdminToken, &format!("t{number}"), &[Role::Check]).unwrap();
    }
    for (detail, most) in [("short".to_owned(), 250), ("ä".repeat(1_000), 250)] {
        for _ in 0..2_000 {
            let reset = Act::NoteReset { domain: "d".to_owned(), detail: detail.clone() };
            assert_eq!(log.act(&of(&operator, "operator"), reset), Outcome::Done);
        }
        let actions = log.actions();
        let resets = actions.iter().filter(|(action, _)| action == "bucket.reset").count();
        assert!((100..=most).contains(&resets), "{resets}");
        assert_eq!(actions.len() - resets, 602, "all that was there before them");
        let last = log.state.access.audit.entries().last().unwrap();
        assert_eq!(last.index, log.index, "the newest reset is there");
    }
    // What else is done has its room back.
    for number in 600..990 {
        log.make(&Identity::AdminToken, &format!("t{number}"), &[Role::Check]).unwrap();
    }
    assert!(log.actions().len() <= 1_000);
}

#[test]
fn a_token_is_known_by_its_text_and_by_nothing_else() {
    let mut log = Log::default();
    let minted = log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
    let tokens = &log.state.access.tokens;
    let text = minted.text.as_str();
    assert!(text.starts_with("tg_") && text.len() == 84, "{text}");
    assert_eq!(tokens.look_up(text.as_bytes()).map(|(id, _)| id), Some(minted.id));
    assert_eq!((tokens.find("ops"), tokens.find(&minted.id.to_string())), (Some(minted.id), Some(minted.id)));
    let other = MintedToken::new().text;
    let swapped = format!("{}{}", &text[..20], &other[20..]);
    let upper = text.to_uppercase();
    let cut = &text[..text.len() - 1];
    let longer = format!("{text}0");
    for wrong in ["", "tg_", cut, &longer, &other, &swapped, &upper, &text[3..], "tg_\u{e4}_0"] {
        assert!(tokens.look_up(wrong.as_bytes()).is_none(), "{wrong}");
    }
    assert!(tokens.look_up(&[0xff; 84]).is_none());
    for (text, has_form) in [(text, true), (&*swapped, true), (&*other, true), (cut, false), (&*upper, false)]
    {
        assert_eq!(Tokens::has_form(text.as_bytes()), has_form, "{text}");
    }
    let token = tokens.get(minted.id).unwrap();
    let told = format!("{token:?}");
    assert!(!told.contains(&text[20..]), "{told}");
    let ends = Token { expires_ms: Some(10), ..(**token).clone() };
    assert!(!ends.is_expired(9) && ends.is_expired(10) && !token.is_expired(u64::MAX));
}

#[test]
fn roles_hold_what_they_say() {
    let of = |roles: &[Role]| -> Vec<Role> {
        let roles: super::super::token::Roles = roles.iter().copied().collect();
        Role::ALL.into_iter().filter(|role| roles.allow(*role)).collect()
    };
    assert_eq!(of(&[Role::Check]), [Role::Check]);
    assert_eq!(of(&[Role::Read]), [Role::Read]);
    assert_eq!(of(&[Role::Operate]), [Role::Read, Role::Operate]);
    assert_eq!(of(&[Role::Admin]), Role::ALL);
    assert_eq!(of(&[Role::Check, Role::Read]), [Role::Check, Role::Read]);
    assert_eq!(of(&[]), []);
}

#[test]
fn a_certificate_stands_for_a_token_until_that_is_revoked() {
    let mut log = Log::default();
    let admin = log.make(&Identity::AdminToken, "ops", &[Role::Admin]).unwrap();
    let by = of(&admin, "ops");
    let make = |name: &str, certificate: &str, roles: &[Role]| {
        let minted = MintedToken::new();
        let (id, token) = (minted.id, token(&minted, name, roles));
        (id, Act::MakeCertificateToken { id, token, certificate: certificate.to_owned() })
    };
    let (id, act) = make("deploy", "deploy.example.com", &[Role::Operate]);
    assert_eq!(log.act(&by, act), Outcome::Done);
    let shows = |id: TokenId, name: &str| Identity::Certificate {
        id,
        name: name.to_owned(),
        certificate: "deploy.example.com".to_owned(),
    };
    assert_eq!(log.state.access.certificates.find("deploy.example.com"), Some(id));
    assert_eq!(log.state.access.certificates.of(id), Some("deploy.example.com"));
    // What its roles allow, and no more.
    let drain = Act::NoteReset { domain: "d".to_owned(), detail: String::new() };
    assert_eq!(log.act(&shows(id, "deploy"), drain.clone()), Outcome::Done);
    assert!(matches!(
        log.act(&shows(id, "deploy"), write("a", "")),
        Outcome::NotDone(ActError::NotAllowed(why)) if why.contains("operate")
    ));
    let noted = log.state.access.audit.entries().next_back().unwrap();
    assert_eq!(noted.actor.identity, shows(id, "deploy"));
    // One certificate name, one token; and a name of a token is taken, too.
    let (_, again) = make("other", "deploy.example.com", &[Role::Admin]);
    assert_eq!(
        log.act(&by, again),
        Outcome::NotDone(ActError::CertificateTaken("deploy.example.com".to_owned()))
    );
    let (_, named) = make("deploy", "other.example.com", &[Role::Admin]);
    assert!(matches!(log.act(&by, named), Outcome::NotDone(ActError::NameTaken(_))));
    assert_eq!(log.state.access.certificates.find("other.example.com"), None);
    // Revoked, it is nothing, whichever node has let it in; and the name is free.
    assert_eq!(log.act(&by, Act::RevokeToken { id }), Outcome::Done);
    assert!(log.state.access.certificates.is_empty());
    assert!(matches!(log.act(&shows(id, "deploy"), drain), Outcome::NotDone(ActError::NotAllowed(_))));
    let (id, act) = make("deploy", "deploy.example.com", &[Role::Admin]);
    assert_eq!(log.act(&by, act), Outcome::Done);
    // It is one that lets somebody administer.
    assert_eq!(log.act(&by, Act::RevokeToken { id: admin.id }), Outcome::Done);
    assert!(matches!(log.act(&shows(id, "deploy"), write("b", "ada")), Outcome::Written(_)));
    assert_eq!(log.state.domains["d"].current().author, "certificate deploy.example.com");
    assert_eq!(
        log.act(&shows(id, "deploy"), Act::RevokeToken { id }),
        Outcome::NotDone(ActError::NoAdminLeft)
    );
}
