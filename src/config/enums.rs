//! Settings whose value is one of a few words. Each enum is declared together with its words.

/// The words that a key accepts.
#[derive(Debug, PartialEq, Eq)]
pub struct Words {
    /// In the order of the documentation.
    pub known: &'static [&'static str],
}

/// Declares an enum and the word of each variant. The first variant is the fallback where a
/// configuration is refused anyway; the default of a key is declared with the key.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $( $(#[$text:meta])* $variant:ident = $word:literal, )* }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$text])* $variant, )*
        }

        impl $name {
            const VARIANTS: &[Self] = &[$(Self::$variant),*];
            /// As the configuration writes them.
            pub const WORDS: &Words = &Words { known: &[$($word),*] };

            /// As the configuration writes it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }

            pub(super) fn of(word: &str) -> Option<Self> {
                Self::VARIANTS.iter().copied().find(|variant| variant.word() == word)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::VARIANTS[0]
            }
        }
    };
}

words! {
    /// `backend.balance`
    Balance {
        /// Servers take turns in proportion to their weights.
        RoundRobin = "roundrobin",
        /// The server with the fewest sessions in proportion to its weight.
        LeastConn = "leastconn",
        /// Of two servers chosen at random by weight, the one with fewer sessions.
        Random = "random",
        /// By the address of the client.
        Source = "source",
        /// The first server of the file that is not full.
        First = "first",
    }
}

words! {
    /// `backend.backups`
    Backups {
        /// All that are up.
        All = "all",
        /// The first that is up.
        First = "first",
    }
}

words! {
    /// `backend.all_down`
    AllDown {
        /// Clients are reset.
        Refuse = "refuse",
        /// All servers are used as if they were up.
        Try = "try",
    }
}

words! {
    /// `backend.on_down`
    OnDown {
        /// They continue.
        Keep = "keep",
        /// They are closed.
        Close = "close",
    }
}

words! {
    /// `backend.health.check`
    Check {
        /// A probe opens a TCP connection.
        Tcp = "tcp",
        /// A probe sends an HTTP request and checks the status of the response.
        Http = "http",
        /// A probe sends bytes and expects bytes.
        Exchange = "exchange",
        /// No probes: every server counts as up.
        Off = "off",
    }
}

words! {
    /// `frontend.proxy_protocol`
    ProxyProtocol {
        /// What a client sends goes to the server.
        Off = "off",
        /// Each connection begins with a PROXY header.
        Required = "required",
    }
}

words! {
    /// `backend.send_proxy`
    SendProxy {
        /// Servers get no PROXY header.
        Off = "off",
        /// They get one of version 1.
        V1 = "v1",
        /// They get one of version 2.
        V2 = "v2",
    }
}

words! {
    /// `observe.log.format`
    LogFormat {
        /// Plain lines.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

words! {
    /// `server.state`, and what an operator sets over the control socket.
    AdminState {
        /// The server gets new sessions.
        Ready = "ready",
        /// The server gets no new session; existing ones continue, and so do probes.
        Drain = "drain",
        /// As drain, and the server is not probed.
        Maint = "maint",
    }
}
