//! A body never decompresses beyond the limit, and the memory that was reserved for the body is released.

#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use ingest::Config;
use ingest::accept::body::{Reservation, decompress};
use ingest::content::Encoding;
use libfuzzer_sys::fuzz_target;
use prometheus::IntGauge;
use runtime::vars::Vars;
use tokio::sync::Semaphore;

/// The largest size of a decompressed body, in bytes. It is small, so that a decompression bomb reaches it soon.
const LIMIT: usize = 256 * 1024;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let vars = [("KAFKA_BROKERS", "none:1"), ("MAX_DECODED_BYTES", "256KiB")];
    Config::from_vars(&Vars::from_pairs(vars)).expect("the variables are valid")
});

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    // The first byte selects the encoding. Add new encodings at the end, so that stored inputs with the first byte 0, 1
    // or 2 keep their encoding.
    let encodings = [Encoding::Gzip, Encoding::Zstd, Encoding::Identity];
    let encoding = encodings[usize::from(*first) % encodings.len()];
    let budget = Arc::new(Semaphore::new(1 << 20));
    let held = IntGauge::new("held", "Bytes.").expect("the name of the metric is valid");
    let Ok(mut reserved) = Reservation::take(&budget, body.len(), &held) else { return };
    let found = decompress(Bytes::copy_from_slice(body), encoding, &CONFIG.accept.limits, &mut reserved);
    if let Ok(found) = found {
        assert!(found.len() <= LIMIT);
    }
    drop(reserved);
    assert_eq!((held.get(), budget.available_permits()), (0, 1 << 20));
});
