//! The measurements of `./dev bench`: it measures Millrace and what it is compared with in one run on one machine.
//!
//! The measurements assert nothing about time, but counts must be exact. The modules are in the order of a run: the
//! plan, what is sent, the load generator, the servers, the comparison, the measurements, the report. The module
//! [`steps`] has the single steps, whose instructions `./dev steps` counts.

pub mod plan;

pub mod input;

pub mod load;

pub mod servers;

pub mod compare;

pub mod measure;

pub mod report;

pub mod steps;

mod progress;
