//! Enums whose variants have a name that other processes see: one table has the variants, their names and `ALL`.

/// An enum with `ALL` and the name of each variant, as `VariantName = "name"`.
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
