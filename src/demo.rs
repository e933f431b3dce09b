//! A short tour. Stand-in: not built yet.

/// Shows it; true: all was as promised.
///
/// # Errors
/// Always.
pub fn demo(once: bool) -> Result<bool, String> {
    let _ = once;
    Err("not built yet".to_owned())
}
