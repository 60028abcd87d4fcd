use super::*;
use crate::codec;
use proptest::prelude::*;

fn charge(key: u64) -> Charge {
    let limit = Limit { algorithm: 0, count: 5, period: Period::Nanos(60_000_000_000), burst: 10 };
    Charge {
        key,
        rule: 0x55,
        cost: 1,
        limit,
        shadow: false,
        strict: true,
        reserve: true,
        shape: 0x66,
        place: 3,
        ban: Some((60, 900)),
    }
}

#[test]
fn the_bytes_of_a_check_are_those_of_version_10() {
    let charges = Charges::new([charge(0xAB)]).unwrap();
    let check = Check { id: 2, undoable: true, charges, request: Some(0x77), revision: 0x88 };
    let mut bytes = Vec::new();
    codec::encode(&check, &mut bytes, 1024).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "0200000000000000",         // id
            "01",                       // undoable
            "0100000000000000",         // one charge
            "ab00000000000000",         // key
            "5500000000000000",         // rule
            "0100000000000000",         // cost
            "00",                       // algorithm
            "0500000000000000",         // count
            "00000000005847f80d000000", // period: Nanos, 60 s
            "0a00000000000000",         // burst
            "00",                       // not shadow
            "01",                       // strict
            "01",                       // reserve
            "6600000000000000",         // shape
            "03000000",                 // place
            "013c00000084030000",       // ban: 60 s, at most 900 s
            "017700000000000000",       // request
            "8800000000000000",         // revision
        )
    );
    assert_eq!(codec::decode::<Check>(&bytes).unwrap(), check);
}

#[test]
fn the_bytes_of_a_calendar_are_those_of_version_10() {
    let period = Period::Calendar { step: 2, zone: 0x99, place: 17, seconds: 3_600 };
    let mut bytes = Vec::new();
    codec::encode(&PeriodOnly(period), &mut bytes, 1024).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Which variant; step; zone; place; seconds.
    assert_eq!(hex, concat!("04000000", "02", "9900000000000000", "11000000", "100e0000"));
    assert_eq!(codec::decode::<PeriodOnly>(&bytes).unwrap().0, period);
}

#[derive(Serialize, Deserialize)]
struct PeriodOnly(Period);

#[test]
fn the_bytes_of_an_amendment_are_those_of_version_3() {
    let amend = Amend {
        id: 7,
        amendment: Amendment::Reset,
        charges: Charges::new([charge(0xAB)]).unwrap(),
        revision: 0x88,
    };
    let mut bytes = Vec::new();
    codec::encode(&amend, &mut bytes, 1024).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Id, which amendment, how many charges; then a charge as in a check.
    assert!(hex.starts_with("0700000000000000010000000100000000000000ab00000000000000"), "{hex}");
    assert_eq!(codec::decode::<Amend>(&bytes).unwrap(), amend);
}

#[test]
fn more_charges_than_allowed_are_refused_without_allocating_for_them() {
    let mut bytes = vec![0; 9];
    bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(codec::decode::<Check>(&bytes).is_err());

    assert!(Charges::new((0..65).map(charge)).is_none());
    let charges = Charges::new((0..64).map(charge)).unwrap();
    let most = Check { id: 1, undoable: false, charges, request: None, revision: 0 };
    let mut bytes = Vec::new();
    codec::encode(&most, &mut bytes, 1 << 20).unwrap();
    assert_eq!(codec::decode::<Check>(&bytes).unwrap(), most);
}

#[test]
fn bytes_left_over_are_refused() {
    let mut bytes = Vec::new();
    codec::encode(&Ping { id: 1 }, &mut bytes, 64).unwrap();
    bytes.push(0);
    assert!(codec::decode::<Ping>(&bytes).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::decode::<Introduction>(&bytes);
        let _ = codec::decode::<Welcome>(&bytes);
        let _ = codec::decode::<Check>(&bytes);
        let _ = codec::decode::<Answer>(&bytes);
        let _ = codec::decode::<Amend>(&bytes);
        let _ = codec::decode::<Refused>(&bytes);
    }
}
