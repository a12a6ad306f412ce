//! The words of an SQL text, its literals and the signs between them; not its comments.
//!
//! # Invariants
//!
//! - All cuts are at ASCII bytes, so every word is a valid slice of the text.
//! - A literal or comment that does not end reaches to the end of the text.

/// Whose rules of quoting apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::db) enum Dialect {
    /// Nested comments, `E'..'` and `$tag$..$tag$`.
    Postgres,
    /// Backquotes and brackets around names.
    Sqlite,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or a name, quoted or not.
    Word(&'a str),
    /// What stands between the quotes of a literal, as it is written.
    Literal(&'a str),
    /// A placeholder `$1`, by its number.
    Placeholder(u64),
    /// `(`, `)`, `,` or `.`.
    Sign(u8),
    /// The end of a statement.
    Semicolon,
}

/// Iterates over the tokens of a text.
pub(super) struct Words<'a> {
    dialect: Dialect,
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(dialect: Dialect, text: &'a str) -> Words<'a> {
        Words { dialect, text, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Moves behind the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &[u8]) {
        let rest = self.rest();
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |start| start + end.len());
    }

    /// Moves behind the end of the line. PostgreSQL ends lines at a carriage return, too.
    fn skip_line(&mut self) {
        let ends = |byte: &u8| *byte == b'\n' || (*byte == b'\r' && self.dialect == Dialect::Postgres);
        let rest = self.rest();
        self.at += rest.iter().position(ends).map_or(rest.len(), |end| end + 1);
    }

    /// Moves behind a quoted piece whose opening quote is at `self.at`. A doubled quote continues it.
    fn skip_quoted(&mut self, close: u8, has_escapes: bool) {
        self.at += 1;
        while let Some(&byte) = self.rest().first() {
            self.at += 1;
            if byte == b'\\' && has_escapes {
                self.at += 1;
            } else if byte == close {
                if self.rest().first() != Some(&close) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        while !self.rest().is_empty() {
            if self.rest().starts_with(b"/*") && (depth == 0 || self.dialect == Dialect::Postgres) {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// Moves behind `$tag$ ... $tag$` if that is what begins here, else behind the placeholder.
    fn dollar(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let tag = rest.iter().skip(1).take_while(|byte| is_word(**byte) && **byte != b'$').count();
        let is_quote = self.dialect == Dialect::Postgres
            && rest.get(tag + 1) == Some(&b'$')
            && !rest.get(1).is_some_and(u8::is_ascii_digit);
        if is_quote {
            let quote = rest.get(..tag + 2).unwrap_or_default();
            self.at += quote.len();
            let start = self.at;
            self.skip_past(quote);
            let body = self.text.get(start..self.at).unwrap_or_default();
            return Some(Token::Literal(
                body.strip_suffix(self.text.get(start - quote.len()..start)?).unwrap_or(body),
            ));
        }
        self.at += 1 + tag;
        let digits = rest.get(1..=tag).and_then(|digits| std::str::from_utf8(digits).ok())?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Token::Placeholder(digits.parse().unwrap_or(u64::MAX)))
    }

    /// A literal whose opening quote is at `self.at`.
    fn literal(&mut self, has_escapes: bool) -> Token<'a> {
        let start = self.at + 1;
        self.skip_quoted(b'\'', has_escapes);
        let text = self.text.get(start..self.at).unwrap_or_default();
        Token::Literal(text.strip_suffix('\'').unwrap_or(text))
    }

    fn quoted_word(&mut self, close: u8) -> Token<'a> {
        let start = self.at + 1;
        self.skip_quoted(close, false);
        let end = if self.at > start { self.at - 1 } else { self.at };
        Token::Word(self.text.get(start..end).unwrap_or_default())
    }

    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        let len = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        self.at += len;
        let word = self.text.get(start..self.at).unwrap_or_default();
        if self.dialect == Dialect::Postgres
            && word.eq_ignore_ascii_case("e")
            && self.rest().first() == Some(&b'\'')
        {
            return self.literal(true);
        }
        Token::Word(word)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest();
            let &byte = rest.first()?;
            match byte {
                b';' => {
                    self.at += 1;
                    return Some(Token::Semicolon);
                }
                b'-' if rest.starts_with(b"--") => self.skip_line(),
                b'/' if rest.starts_with(b"/*") => self.skip_comment(),
                b'\'' => return Some(self.literal(false)),
                b'"' => return Some(self.quoted_word(b'"')),
                b'`' if self.dialect == Dialect::Sqlite => return Some(self.quoted_word(b'`')),
                b'[' if self.dialect == Dialect::Sqlite => return Some(self.quoted_word(b']')),
                b'$' => {
                    if let Some(token) = self.dollar() {
                        return Some(token);
                    }
                }
                b'(' | b')' | b',' | b'.' => {
                    self.at += 1;
                    return Some(Token::Sign(byte));
                }
                b'0'..=b'9' => self.at += rest.iter().take_while(|byte| is_word(**byte)).count(),
                _ if is_word(byte) => return Some(self.word()),
                _ => self.at += 1,
            }
        }
    }
}

/// Bytes beyond ASCII are letters of names.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}
