//! How many watches each client has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

/// Counts watches by client address. Clients on a Unix socket are of this host and not counted.
#[derive(Debug, Clone)]
pub(super) struct Watches {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One watch, counted for as long as it lives.
#[derive(Debug)]
pub(super) struct Watch(Option<(Watches, IpAddr)>);

impl Watches {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// Counts one more, unless the client has too many.
    pub(super) fn open(&self, client: Option<IpAddr>) -> Result<Watch, Status> {
        let Some(client) = client else { return Ok(Watch(None)) };
        let mut open = self.count();
        let count = open.entry(client).or_default();
        if *count >= self.most {
            return Err(Status::resource_exhausted(format!(
                "{} watches are open from this address, which is the most that a client may have",
                self.most
            )));
        }
        *count += 1;
        drop(open);
        Ok(Watch(Some((self.clone(), client))))
    }

    fn count(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((watches, client)) = &self.0 else { return };
        let mut open = watches.count();
        if let Some(count) = open.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                open.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_so_many() {
        let watches = Watches::new(2);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().ok());
        let one = watches.open(a).unwrap();
        let _two = watches.open(a).unwrap();
        assert_eq!(watches.open(a).unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(watches.open(b).is_ok() && watches.open(None).is_ok());
        drop(one);
        let _three = watches.open(a).unwrap();
        assert!(watches.open(a).is_err());
        assert_eq!(watches.count().len(), 1);
    }
}
