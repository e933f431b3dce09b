//! Which backend a `ClientHello` leads to: `sni` and `alpn` of a frontend.

use std::collections::HashMap;

/// What is kept of a `ClientHello`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (SNI), in lower case and without a dot at its end.
    pub server_name: Option<Box<str>>,
    /// The first protocol of the client (ALPN) that has a route.
    pub protocol: Option<Box<[u8]>>,
}

/// The routes of a frontend; `T` is a backend.
#[derive(Debug)]
pub struct Routes<T> {
    names: HashMap<Box<str>, T>,
    /// Names that begin with `*.`, without it.
    domains: HashMap<Box<str>, T>,
    protocols: HashMap<Box<[u8]>, T>,
}

impl<T> Routes<T> {
    /// Of names and protocols as the configuration has them.
    #[must_use]
    pub fn new<'a>(
        sni: impl IntoIterator<Item = (&'a str, T)>,
        alpn: impl IntoIterator<Item = (&'a str, T)>,
    ) -> Self {
        let (mut names, mut domains) = (HashMap::new(), HashMap::new());
        for (name, backend) in sni {
            match name.strip_prefix("*.") {
                Some(domain) => domains.insert(domain.into(), backend),
                None => names.insert(name.into(), backend),
            };
        }
        let alpn = alpn.into_iter();
        let protocols = alpn.map(|(name, backend)| (name.as_bytes().into(), backend)).collect();
        Self { names, domains, protocols }
    }

    /// Whether a protocol has a route.
    #[must_use]
    pub fn has_protocol(&self, protocol: &[u8]) -> bool {
        self.protocols.contains_key(protocol)
    }

    /// The backend of the exact name; else of the longest domain that the name is in; else of the
    /// protocol.
    #[must_use]
    pub fn find(&self, hello: &ClientHello) -> Option<&T> {
        let of_name = hello.server_name.as_deref().and_then(|name| {
            self.names.get(name).or_else(|| {
                let mut dots = name.match_indices('.');
                dots.find_map(|(dot, _)| self.domains.get(&name[dot + 1..]))
            })
        });
        of_name.or_else(|| self.protocols.get(hello.protocol.as_deref()?))
    }

    /// Every backend, some more than once.
    pub fn backends(&self) -> impl Iterator<Item = &T> {
        self.names.values().chain(self.domains.values()).chain(self.protocols.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_comes_before_the_longest_domain_and_that_before_the_protocol() {
        let sni =
            [("*.test", "test"), ("*.a.test", "domain"), ("www.a.test", "exact"), ("b.test", "b")];
        let routes = Routes::new(sni, [("h2", "h2")]);
        let find = |name: &str, protocol: &str| {
            let server_name = (!name.is_empty()).then(|| name.into());
            let protocol = (!protocol.is_empty()).then(|| protocol.as_bytes().into());
            routes.find(&ClientHello { server_name, protocol }).copied()
        };
        for (name, protocol, expected) in [
            ("www.a.test", "h2", Some("exact")),
            ("x.www.a.test", "h2", Some("domain")),
            ("x.a.test", "", Some("domain")),
            ("a.test", "", Some("test")),
            ("b.test", "", Some("b")),
            ("c.b.test", "", Some("test")),
            ("test", "", None),
            ("test", "h2", Some("h2")),
            ("xtest", "", None),
            ("", "h2", Some("h2")),
            ("", "h3", None),
            ("", "", None),
            ("..", "", None),
        ] {
            assert_eq!(find(name, protocol), expected, "{name:?} {protocol:?}");
        }
        assert!(routes.has_protocol(b"h2") && !routes.has_protocol(b"H2"));
        assert_eq!(routes.backends().count(), 5);
    }
}
