//! Whatever two tenants and a controller do, in any order: nothing reaches the wrong one, and nothing is lost or changed.

mod tenants;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_reaches_the_wrong_tenant(data in vec(any::<u8>(), 0..600)) {
        tenants::run(&data);
    }
}
