//! Runs the ClickHouse server inside this process, by calling a C function of a shared library.
#![expect(unsafe_code, reason = "calls a C function that is known only once its library is loaded")]

use std::ffi::{CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::ptr;

use anyhow::Context;
use libloading::Library;

use crate::process::guard;

/// `int chdb_query_cmdline(int argc, char **argv)`: does what the program `clickhouse-local` does.
type QueryCmdline = unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int;

/// Runs in the child: serves ClickHouse with these command line options until standard input is closed or `parent`
/// dies. Returns the exit code.
pub fn serve(parent: u32, library: &Path, options: Vec<OsString>) -> anyhow::Result<i32> {
    guard::die_with(parent)?;
    let arguments = [OsString::from("clickhouse")].into_iter().chain(options);
    let arguments: Result<Vec<CString>, _> = arguments.map(|a| CString::new(a.into_vec())).collect();
    let arguments = arguments.context("read ClickHouse's options")?;
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    let argc = c_int::try_from(argv.len()).context("count ClickHouse's options")?;
    argv.push(ptr::null_mut());

    // SAFETY: the library is the pinned version that `./dev` downloaded; its initialisers
    // need nothing from the process that loads it.
    let library = unsafe { Library::new(library) }.with_context(|| format!("load {}", library.display()))?;
    // SAFETY: the symbol has this type in the library's header.
    let query = unsafe { library.get::<QueryCmdline>(b"chdb_query_cmdline") };
    let query = query.context("find `chdb_query_cmdline` in the ClickHouse library")?;
    // SAFETY: as for any `main`, `argv` holds `argc` pointers to strings that end in a zero byte, and then a null
    // pointer. The strings live until the call returns.
    Ok(unsafe { query(argc, argv.as_mut_ptr()) })
}
