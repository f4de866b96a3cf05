//! The measurements of `./dev bench`. One run on one machine measures both Millrace and the servers that it is
//! compared with.
//!
//! The measurements assert nothing about time, but counts must be exact. The modules are in the order of a run: the
//! plan, what is sent, the load generator, the servers, the comparison, the measurements, the report. The module
//! [`steps`] has the steps whose processor instructions `./dev steps` counts.

pub mod plan;

pub mod input;

pub mod load;

pub mod servers;

pub mod compare;

pub mod measure;

pub mod report;

pub mod steps;

mod progress;
