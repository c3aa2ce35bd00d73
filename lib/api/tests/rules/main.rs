//! The rules of types, driven as the API server drives them: what is filled in, what is refused and in which words.

mod defaults;
mod support;
