//! The rows of the matrix: a file for each step. The words of the scripts are in `words`.

mod reasons;
mod accept;
mod preface;
mod queue;
mod connect;
mod first_byte;
mod relaying;
mod half_closed;
mod closing;

use crate::matrix::{Cell, Cover, Row, Step};

/// In the order of the steps.
const ROWS: [&[Row]; 8] = [
    accept::ROWS,
    preface::ROWS,
    queue::ROWS,
    connect::ROWS,
    first_byte::ROWS,
    relaying::ROWS,
    half_closed::ROWS,
    closing::ROWS,
];

/// All rows, as they are written.
pub(crate) fn rows() -> Vec<(Cell, Cover)> {
    let of = |step: Step, row: &Row| (Cell { step, fault: row.0 }, row.1);
    let steps = Step::ALL.into_iter().zip(ROWS);
    steps.flat_map(|(step, rows)| rows.iter().map(move |row| of(step, row))).collect()
}
