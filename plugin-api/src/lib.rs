//! What a plugin is written against.
