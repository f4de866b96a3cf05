//! Any program may write records to the topic. The headers and the lines of a record are read or refused, and never
//! cause a panic.

#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use schemas::{line, record};

fuzz_target!(|input: &[u8]| {
    let mut fields = input.splitn(5, |byte| *byte == 0);
    let heads = ["v", "n", "id", "spooled"].map(|name| (name, fields.next().unwrap_or_default()));
    if let Ok(head) = record::Head::read(heads) {
        let written: Vec<_> = head.headers().collect();
        let again = written.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(record::Head::read(again), Ok(head));
    }
    for text in record::lines(fields.next().unwrap_or_default()) {
        let told = line::tenant_of(text);
        if let Some(Ok(read)) = str::from_utf8(text).ok().map(line::read::<Vec<(Cow<'_, str>, &str)>>) {
            assert!(line::is_tenant(read.tenant) && told.is_none_or(|told| line::is_tenant(told)));
        }
    }
});
