//! How many streams are open: in the process, and for each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the open streams of the process. The readers of one key may open at most half of the permitted streams
/// (rounded up), so that readers of other keys can open streams too. If readers need no key, only the limit of the
/// process applies.
pub(super) struct OpenStreams {
    most: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    /// The number of open streams by the id of their key. A key without a stream has no entry.
    of_keys: HashMap<String, usize>,
}

/// Why no stream was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The process has the maximum number of streams.
    Process,
    /// The key has the maximum number of streams for one key.
    Key,
}

/// One open stream. It counts towards the limits until it is dropped.
pub(super) struct OpenStream {
    streams: Arc<OpenStreams>,
    key: Option<String>,
}

impl OpenStreams {
    pub(super) fn new(most: usize) -> Self {
        Self { most, counts: Mutex::default() }
    }

    /// Opens a stream for the reader whose key has the id `key`. `key` is `None` if readers need no key.
    ///
    /// # Errors
    /// The process or the key already has its maximum number of open streams.
    pub(super) fn open(self: &Arc<Self>, key: Option<&str>) -> Result<OpenStream, Full> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.most {
            return Err(Full::Process);
        }
        if let Some(key) = key {
            let of_key = counts.of_keys.get(key).copied().unwrap_or(0);
            if of_key >= self.most.div_ceil(2) {
                return Err(Full::Key);
            }
            counts.of_keys.insert(key.to_owned(), of_key + 1);
        }
        counts.all += 1;
        Ok(OpenStream { streams: Arc::clone(self), key: key.map(str::to_owned) })
    }

    /// The number of open streams in the process.
    pub(super) fn len(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut counts = self.streams.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let Some(key) = &self.key else { return };
        if let Some(of_key) = counts.of_keys.get_mut(key) {
            *of_key -= 1;
            if *of_key == 0 {
                counts.of_keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_open_half_of_the_streams_and_other_keys_the_rest() {
        let streams = Arc::new(OpenStreams::new(4));
        let of = |key| streams.open(Some(key));
        let (first, second) = (of("a").unwrap(), of("a").unwrap());
        assert_eq!(of("a").err(), Some(Full::Key));
        let _others = (of("b").unwrap(), of("c").unwrap());
        assert_eq!(of("d").err(), Some(Full::Process));
        drop((first, second));
        assert!(of("a").is_ok());
        assert_eq!(streams.len(), 2);
        assert_eq!(streams.counts.lock().unwrap().of_keys.len(), 2, "a key without a stream has an entry");
    }

    #[test]
    fn readers_without_keys_may_open_all_streams() {
        let streams = Arc::new(OpenStreams::new(2));
        let _open = (streams.open(None).unwrap(), streams.open(None).unwrap());
        assert_eq!(streams.open(None).err(), Some(Full::Process));
    }
}
