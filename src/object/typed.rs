//! Java objects as Rust types: `java_class!` declares a struct that reads like the Java class.

use bytes::Bytes;

use super::{AccessError, Value, View};

/// A Rust type that a Java field's value can be read as.
pub trait FromJava<'g>: Sized {
    /// Reads field `name` of `object`.
    ///
    /// # Errors
    /// If the field is of another type, or null where this type can't be.
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError>;
}

macro_rules! primitive {
    ($type:ty, $variant:ident, $what:literal) => {
        impl<'g> FromJava<'g> for $type {
            fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
                match object.field(name) {
                    Some(Value::$variant(value)) => Ok(value),
                    // Java gives a field that the sender's class lacks its default value.
                    None => Ok(Self::default()),
                    Some(_) => Err(object.error(format!(concat!("field {} is not ", $what), name))),
                }
            }
        }
    };
}

primitive!(bool, Bool, "a boolean");
primitive!(i8, Byte, "a byte");
primitive!(i16, Short, "a short");
primitive!(u16, Char, "a char");
primitive!(i32, Int, "an int");
primitive!(i64, Long, "a long");
primitive!(f32, Float, "a float");
primitive!(f64, Double, "a double");

impl<'g> FromJava<'g> for View<'g> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        object.require(name)
    }
}

impl<'g> FromJava<'g> for Option<View<'g>> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        object.get(name)
    }
}

impl<'g> FromJava<'g> for String {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        object.require_string(name).map(Into::into)
    }
}

impl<'g> FromJava<'g> for Option<String> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        Ok(object.string(name)?.map(Into::into))
    }
}

impl<'g> FromJava<'g> for Bytes {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        object.require(name)?.byte_array()
    }
}

/// A collection of strings; null elements are an error.
impl<'g> FromJava<'g> for Vec<String> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        Option::<Vec<String>>::from_field(object, name)?
            .ok_or_else(|| object.error(format!("field {name} is null or missing")))
    }
}

/// A collection or an array of strings, or null; null elements are an error.
impl<'g> FromJava<'g> for Option<Vec<String>> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let Some(view) = object.get(name)? else { return Ok(None) };
        let items = match view.elements() {
            Ok(elements) => elements.collect(),
            Err(_) => view.collection()?,
        };
        let strings = items.into_iter().map(|item| match item {
            Some(item) => item.as_str().map(Into::into),
            None => Err(object.error(format!("field {name} has a null element"))),
        });
        strings.collect::<Result<_, _>>().map(Some)
    }
}

/// Declares a Rust struct for a Java class, and how to read one from a [`View`].
///
/// Fields go by the Java class's own names; order, other fields and superclasses do not matter.
#[macro_export]
macro_rules! java_class {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(<$g:lifetime>)? {
        $($(#[$fmeta:meta])* $field:ident : $type:ty = $java:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name $(<$g>)? {
            $($(#[$fmeta])* $vis $field: $type),*
        }

        $crate::java_class!(@impl $name $(<$g>)? { $($field : $type = $java),* });
    };
    (@impl $name:ident <$g:lifetime> { $($field:ident : $type:ty = $java:literal),* }) => {
        impl<$g> $name<$g> {
            /// Reads the fields of `object`.
            ///
            /// # Errors
            /// If a field is of another type than expected, or null where it must not be.
            #[allow(unused_variables, clippy::self_named_constructors)]
            pub fn read(object: $crate::object::View<$g>) -> Result<Self, $crate::object::AccessError> {
                Ok(Self { $($field: <$type as $crate::object::FromJava<$g>>::from_field(object, $java)?),* })
            }
        }
    };
    (@impl $name:ident { $($field:ident : $type:ty = $java:literal),* }) => {
        impl $name {
            /// Reads the fields of `object`.
            ///
            /// # Errors
            /// If a field is of another type than expected, or null where it must not be.
            #[allow(unused_variables, clippy::self_named_constructors)]
            pub fn read(object: $crate::object::View<'_>) -> Result<Self, $crate::object::AccessError> {
                Ok(Self { $($field: $crate::object::FromJava::from_field(object, $java)?),* })
            }
        }
    };
}
