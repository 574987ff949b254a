//! What models of one base share is kept with the base, without the base knowing what it is.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One value of each type, made when it is first asked for.
#[derive(Default)]
pub(super) struct Attached(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Attached {
    /// The value of this type, the same each time.
    pub fn get<T: Default + Any + Send + Sync>(&self) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = all.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default())).clone();
        one.downcast().unwrap_or_default() // it is of the type that it is listed under
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_type() {
        let attached = Attached::default();
        *attached.get::<Mutex<i32>>().lock().unwrap() = 3;
        attached.get::<Mutex<String>>().lock().unwrap().push('x');
        assert_eq!(*attached.get::<Mutex<i32>>().lock().unwrap(), 3);
        assert_eq!(*attached.get::<Mutex<String>>().lock().unwrap(), "x");
    }
}
