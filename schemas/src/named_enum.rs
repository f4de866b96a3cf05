//! A macro that declares an enum and the names of its variants in one table, for names that other processes see.

/// Declares an enum with variants of the form `Variant = "name"`, the list `ALL` of its variants, and a function that
/// returns the name of a variant.
macro_rules! named_enum {
    (
        $(#[$attribute:meta])*
        pub enum $enum:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal,)*
        }
        $(#[$all_doc:meta])*
        $all_visibility:vis const ALL;
        $(#[$name_doc:meta])*
        pub fn $name_of:ident;
    ) => {
        $(#[$attribute])*
        pub enum $enum {
            $($(#[$doc])* $variant,)*
        }

        impl $enum {
            $(#[$all_doc])*
            $all_visibility const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            $(#[$name_doc])*
            pub fn $name_of(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

pub(crate) use named_enum;
