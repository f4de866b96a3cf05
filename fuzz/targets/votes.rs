//! If a line that was rewritten as a vote is a valid event, its event name is `vote`.

#![no_main]

use ingest::accept::decode;
use ingest::endpoints::votes::Votes;
use libfuzzer_sys::fuzz_target;
use schemas::event;

fuzz_target!(|body: &[u8]| {
    let Ok(lines) = decode::lines(body, 50) else { return };
    let votes = Votes::read(&lines);
    assert_eq!(votes.lines().len(), lines.len());
    for text in votes.lines().iter().filter_map(|line| line.text.ok()) {
        // `Votes::read` does not find all faults of a line, so a rewritten line may still be an invalid event.
        if let Ok(parsed) = event::parse::<()>(text) {
            assert_eq!(parsed.event.event, "vote");
        }
    }
});
