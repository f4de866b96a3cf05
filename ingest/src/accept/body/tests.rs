use std::io::Write as _;

use ::http::{HeaderValue, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{Full, Limited};
use proptest::prelude::*;
use runtime::vars::Vars;

use super::*;
use crate::Config;

fn limits(pairs: &[(&str, &str)]) -> BodyLimits {
    let brokers = [("KAFKA_BROKERS", "none:1")];
    Config::from_vars(&Vars::from_pairs(brokers.iter().chain(pairs).copied())).unwrap().accept.limits
}

#[track_caller]
fn check_described(headers: &[(HeaderName, &str)], expected: Result<Encoding, Refusal>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    let described = BodyHeaders::of(&map, &limits(&[]));
    assert_eq!(described.map(|described| described.encoding), expected, "{headers:?}");
}

#[test]
fn media_type_and_encoding_come_from_the_headers() {
    check_described(&[], Ok(Encoding::Identity));
    check_described(&[(CONTENT_ENCODING, "GZIP")], Ok(Encoding::Gzip));
    check_described(&[(CONTENT_ENCODING, "x-gzip")], Ok(Encoding::Gzip));
    check_described(&[(CONTENT_ENCODING, " Zstd")], Ok(Encoding::Zstd));
    check_described(&[(CONTENT_ENCODING, "identity")], Ok(Encoding::Identity));
    let others = [
        "",
        "Application/X-NDJSON; charset=utf-8",
        "text/plain;charset=UTF-8",
        "application/cloudevents+json",
    ];
    for name in MEDIA_TYPES.into_iter().chain(others) {
        check_described(&[(CONTENT_TYPE, name)], Ok(Encoding::Identity));
    }
}

#[test]
fn a_compressed_body_without_content_encoding_is_refused() {
    for (body, encoding) in [(gzip(b"{}"), Encoding::Gzip), (zstd(b"{}"), Encoding::Zstd)] {
        let refused = inflated(Encoding::Identity, &body, &limits(&[]));
        assert_eq!(refused, Err(Refusal::UndeclaredEncoding(encoding)));
    }
}

#[test]
fn an_unsupported_or_too_long_body_is_refused_by_its_headers() {
    for name in ["image/png", "application/+json", "text/html", "application/xml", "image/svg+json"] {
        check_described(&[(CONTENT_TYPE, name)], Err(Refusal::ContentType));
    }
    check_described(&[(CONTENT_ENCODING, "br")], Err(Refusal::ContentEncoding));
    check_described(&[(CONTENT_ENCODING, "zstd, gzip")], Err(Refusal::ContentEncoding));
    check_described(&[(CONTENT_ENCODING, "gzip, gzip")], Err(Refusal::ContentEncoding));
    check_described(&[(CONTENT_ENCODING, "gzip"), (CONTENT_ENCODING, "gzip")], Err(Refusal::ContentEncoding));
    check_described(&[(CONTENT_LENGTH, "100000000")], Err(Refusal::BodyTooLarge(8 << 20)));
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

fn inflated(encoding: Encoding, sent: &[u8], limits: &BodyLimits) -> Result<Vec<u8>, Refusal> {
    let budget = Arc::new(Semaphore::new(limits.in_flight_bytes));
    let gauge = IntGauge::new("bytes", "Bytes.").unwrap();
    let mut reserved = Reservation::take(&budget, sent.len(), &gauge).unwrap();
    let result = decompress(Bytes::copy_from_slice(sent), encoding, limits, &mut reserved);
    if let Ok(plain) = &result {
        assert!(gauge.get() as usize >= sent.len() + plain.len());
    }
    drop(reserved);
    assert_eq!((gauge.get(), budget.available_permits()), (0, limits.in_flight_bytes));
    result.map(Vec::from)
}

type Compress = fn(&[u8]) -> Vec<u8>;

const COMPRESSED: [(Encoding, Compress); 2] = [(Encoding::Gzip, gzip), (Encoding::Zstd, zstd)];

#[test]
fn a_compressed_body_of_one_or_several_members_is_decompressed_completely() {
    let plain: Vec<u8> = (0..200_000).map(|_| fastrand::u8(..)).collect();
    for (encoding, compress) in COMPRESSED {
        assert_eq!(inflated(encoding, &compress(&plain), &limits(&[])), Ok(plain.clone()));
        let two = [compress(b"a\n"), compress(b"b")].concat();
        assert_eq!(inflated(encoding, &two, &limits(&[])), Ok(b"a\nb".to_vec()));
    }
}

#[test]
fn a_truncated_or_damaged_compressed_body_is_refused() {
    for (encoding, compress) in COMPRESSED {
        let whole = compress(b"{\"event\":\"a\"}\n{\"event\":\"b\"}\n");
        let inflated = |sent: &[u8]| inflated(encoding, sent, &limits(&[]));
        for end in 1..whole.len() {
            assert_eq!(inflated(&whole[..end]), Err(Refusal::BadEncoding), "{encoding:?} cut at {end}");
        }
        assert_eq!(inflated(b"{\"event\":\"a\"}"), Err(Refusal::BadEncoding));
        assert_eq!(inflated(&[&whole[..], b"x"].concat()), Err(Refusal::BadEncoding));
    }
}

#[test]
fn a_decompression_bomb_is_refused_by_ratio_and_by_size() {
    for (encoding, compress) in COMPRESSED {
        let bomb = compress(&vec![b' '; 16 << 20]);
        let by_ratio = Err(Refusal::DecodedTooLarge((1 << 20) + 100 * bomb.len()));
        assert_eq!(inflated(encoding, &bomb, &limits(&[])), by_ratio);
        assert_eq!(
            inflated(encoding, &bomb, &limits(&[("MAX_DECODED_BYTES", "1MiB")])),
            Err(Refusal::DecodedTooLarge(1 << 20))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Some of the bodies compress to almost nothing, and some are damaged.
    #[test]
    fn no_body_is_decompressed_beyond_its_limit(
        member in prop::collection::vec(any::<u8>(), 0..300), repeated in 1_usize..5000,
        members in 1_usize..4, damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        limit in 1_usize..2 << 20,
    ) {
        let limits = limits(&[("MAX_DECODED_BYTES", &limit.to_string())]);
        let plain = member.repeat(repeated);
        for (encoding, compress) in COMPRESSED {
            let mut sent = compress(&plain).repeat(members);
            if let Some((at, byte)) = damage {
                let at = at.index(sent.len());
                sent[at] ^= byte;
            }
            let limit = limit.min(RATIO_FREE_BYTES + MAX_RATIO * sent.len());
            let expected = plain.repeat(members);
            match inflated(encoding, &sent, &limits) {
                Ok(decoded) if damage.is_none() => prop_assert!(decoded == expected && decoded.len() <= limit),
                Ok(decoded) => prop_assert!(decoded.len() <= limit),
                Err(Refusal::DecodedTooLarge(told)) => {
                    prop_assert!(told == limit && (damage.is_some() || expected.len() > limit));
                }
                Err(refusal) => prop_assert!(damage.is_some() && refusal == Refusal::BadEncoding),
            }
        }
    }
}

#[test]
fn a_zstd_window_larger_than_rfc_8878_recommends_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(MAX_WINDOW_LOG + 1).unwrap();
    encoder.write_all(b"{}").unwrap();
    let sent = encoder.finish().unwrap();
    assert_eq!(inflated(Encoding::Zstd, &sent, &limits(&[])), Err(Refusal::BadEncoding));
}

#[test]
fn a_reservation_beyond_the_budget_is_refused_at_once() {
    let budget = Arc::new(Semaphore::new(100));
    let gauge = IntGauge::new("bytes", "Bytes.").unwrap();
    let mut first = Reservation::take(&budget, 60, &gauge).unwrap();
    let overloaded = Refusal::Overloaded(Bound::InFlightBytes);
    assert_eq!(Reservation::take(&budget, 60, &gauge).err(), Some(overloaded.clone()));
    assert_eq!(overloaded.status(), StatusCode::SERVICE_UNAVAILABLE);
    first.resize(30).unwrap();
    assert_eq!((gauge.get(), budget.available_permits()), (30, 70));
    assert!(Reservation::take(&budget, 60, &gauge).is_ok());
}

/// A body whose frames are all available from the start. After them, the body ends if `is_complete` is true;
/// otherwise it stays open and sends nothing more.
struct Frames {
    frames: Vec<Bytes>,
    is_complete: bool,
}

fn frames_of(frames: &[&'static [u8]], is_complete: bool) -> Frames {
    Frames { frames: frames.iter().copied().map(Bytes::from_static).collect(), is_complete }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        if self.frames.is_empty() {
            return if self.is_complete { std::task::Poll::Ready(None) } else { std::task::Poll::Pending };
        }
        let data = self.frames.remove(0);
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(data))))
    }
}

#[tokio::test(start_paused = true)]
async fn the_frames_of_a_body_are_joined_within_the_limit() {
    let limits = limits(&[("MAX_BODY_BYTES", "5")]);
    let frames = |frames: &[&'static [u8]]| frames_of(frames, true);
    assert_eq!(read(&mut frames(&[b"ab", b"", b"c", b"de"]), None, &limits).await, Ok(Bytes::from("abcde")));
    assert_eq!(read(&mut frames(&[]), None, &limits).await, Ok(Bytes::new()));
    assert_eq!(read(&mut frames(&[b"abc", b"def"]), Some(1), &limits).await, Err(Refusal::BodyTooLarge(5)));
    let mut broken = Limited::new(Full::new(Bytes::from("abc")), 1);
    assert_eq!(read(&mut broken, None, &limits).await, Err(Refusal::Aborted));
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_split_into_frames(
        body in prop::collection::vec(any::<u8>(), 0..200), lengths in prop::collection::vec(0_usize..50, 0..20),
        most in 1_usize..200, declares: bool,
    ) {
        let mut rest = Bytes::from(body.clone());
        let mut frames: Vec<_> = lengths.iter().map(|length| rest.split_to(rest.len().min(*length))).collect();
        frames.push(rest);
        let limits = limits(&[("MAX_BODY_BYTES", &most.to_string())]);
        let declared = declares.then_some(body.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let found = runtime.block_on(read(&mut Frames { frames, is_complete: true }, declared, &limits));
        let expected = if body.len() > most { Err(Refusal::BodyTooLarge(most)) } else { Ok(Bytes::from(body)) };
        prop_assert_eq!(found, expected);
    }
}

/// How long the edge waits for the end of a body if `bytes` bytes arrive at once and then nothing more.
async fn time_until_timeout(bytes: usize) -> Duration {
    const LONG: &[u8] = &[b'x'; 16 * 1024];
    let start = Instant::now();
    let mut silent = frames_of(&[&LONG[..bytes]], false);
    assert_eq!(read(&mut silent, None, &limits(&[])).await, Err(Refusal::BodyTimeout));
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_sends_nothing_more_times_out() {
    assert_eq!(time_until_timeout(16 * 1024).await.as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_body_slower_than_the_minimum_rate_times_out() {
    assert_eq!(time_until_timeout(2).await.as_secs(), 5);
    assert_eq!(time_until_timeout(512 * 7).await.as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_refused_request_is_read_only_up_to_a_limit() {
    let long: &'static [u8] = &[b'x'; MAX_DRAIN_BYTES];
    let frames = frames_of;
    assert!(drain(&mut frames(&[b"ab"], true), &HeaderMap::new()).await);
    assert!(!drain(&mut frames(&[long, b"x"], true), &HeaderMap::new()).await);
    assert!(!drain(&mut frames(&[b"ab"], false), &HeaderMap::new()).await);
    let expects = HeaderMap::from_iter([(EXPECT, HeaderValue::from_static("100-continue"))]);
    assert!(!drain(&mut frames(&[b"ab"], true), &expects).await);
}
