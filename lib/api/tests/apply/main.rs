//! Field ownership against the facts of structured-merge-diff's public test tables: `facts/*.jsonl`, one case a line,
//! each with the file and the case it comes from. Inputs and expectations are that project's; none is our own output.

mod managers;
mod merges;
mod properties;
mod schemas;
mod sets;
mod values;
