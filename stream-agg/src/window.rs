//! stub
use std::{fmt, str::FromStr};
/// d
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest { /// c
    pub count: u64, /// s
    pub sum: u128 }
impl fmt::Display for Digest { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:x}-{:x}", self.count, self.sum) } }
impl FromStr for Digest { type Err = (); fn from_str(t: &str) -> Result<Self, ()> { let (a,b)=t.split_once('-').ok_or(())?; Ok(Self{count: u64::from_str_radix(a,16).map_err(|_|())?, sum: u128::from_str_radix(b,16).map_err(|_|())?}) } }
/// l
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits { /// a
    pub age_ms: i64, /// i
    pub max_ids: usize }
impl Default for WindowLimits { fn default() -> Self { Self { age_ms: 86_400_000, max_ids: 1_000_000 } } }
use crate::progress::Offset; use schemas::time::UnixMillis;
/// w
pub struct Window;
impl Window { /// n
    pub fn new() -> Self { Self } /// r
    pub fn restore(&mut self, _: Offset, _: UnixMillis, _: impl Iterator<Item=u64>) {} /// f
    pub fn floor(&self) -> Option<Offset> { None } /// d
    pub fn digest(&self) -> Digest { Digest::default() } /// n
    pub fn newest(&self) -> Option<UnixMillis> { None } /// c
    pub fn clear(&mut self) {}
}
/// k
pub fn record_key(_: uuid::Uuid) -> u64 { 0 }
