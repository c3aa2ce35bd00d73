//! The rules of types, driven as the API server drives them: what is filled in, what is refused and in which words.

mod bad_others;
mod bad_pods;
mod columns;
mod defaults;
mod definitions;
mod support;
mod updates;
