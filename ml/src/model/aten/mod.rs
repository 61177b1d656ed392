//! The operators that a node may name: PyTorch's ATen, without what draws at random, opens files or changes what it is given.
//!
//! A stranger's file can name these and nothing else, so it does arithmetic and nothing else. They are tch's typed functions, one line each: what fails is an error with
//! libtorch's text. Names are ATen's, with the overload where there is one (`add.Tensor`); arguments have the names of ATen's schema.

mod arithmetic;
mod layers;
mod shape;

use super::value::{Args, Datum};
use crate::error::Result;

/// An operator: arguments in, value out.
pub type Operator = fn(&Args<'_>) -> Result<Datum>;

/// A table of operators: name, and what it does.
macro_rules! operators {
    ($($name:literal => $run:expr;)*) => {
        /// Names of these operators.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The operator of a name.
        pub fn find(name: &str) -> Option<super::Operator> {
            match name {
                $($name => Some($run as super::Operator),)*
                _ => None,
            }
        }
    };
}
use operators;
pub use shape::is_float;

/// The operator of a name.
pub fn find(name: &str) -> Option<Operator> {
    arithmetic::find(name).or_else(|| shape::find(name)).or_else(|| layers::find(name))
}

/// Names of all operators.
pub fn names() -> Vec<&'static str> {
    let mut all = [arithmetic::NAMES, shape::NAMES, layers::NAMES].concat();
    all.sort_unstable();
    all
}

/// Can what it yields share memory with its first argument?
pub fn may_share(name: &str) -> bool {
    shape::SHARING.contains(&name)
}

/// Does it look only at shape and kind of its first argument, not at its numbers?
pub fn ignores_numbers(name: &str) -> bool {
    name.starts_with("sym_size")
        || matches!(
            name,
            "new_zeros" | "new_ones" | "new_full" | "zeros_like" | "ones_like" | "full_like" | "fill.Tensor" | "fill.Scalar" | "zero"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn names_are_unique_and_found() {
        let all = names();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|name| find(name).is_some()) && find("random_").is_none());
        assert!(shape::SHARING.iter().all(|name| find(name).is_some()), "{:?}", shape::SHARING);
    }

    /// As a network in float64 calls them that was exported in float32.
    fn called(target: &str, given: &[(&'static str, Datum)]) -> tch::Tensor {
        let given = given.iter().map(|(name, datum)| (*name, datum.share())).collect();
        let args = Args::new(tch::Device::Cpu, tch::Kind::Double, given);
        match find(target).unwrap()(&args).unwrap() {
            Datum::Tensor(tensor) => tensor,
            other => panic!("{target} yields {other:?}"),
        }
    }

    #[test]
    fn what_is_made_is_of_the_kind_that_is_computed_in() {
        use tch::{Kind, Tensor};
        let float = ("dtype", Datum::Kind(Kind::Float));
        assert_eq!(called("zeros", &[("size", Datum::Ints(vec![2])), float]).kind(), Kind::Double);
        assert_eq!(called("zeros", &[("size", Datum::Ints(vec![2]))]).kind(), Kind::Double);
        assert_eq!(called("arange", &[("end", Datum::Int(3))]).kind(), Kind::Int64);
        assert_eq!(
            called("arange", &[("end", Datum::Int(3)), ("dtype", Datum::Kind(Kind::Float))]).kind(),
            Kind::Double
        );
        let mask = Tensor::from_slice(&[true, false]);
        assert_eq!(
            called("to.dtype", &[("self", mask.shallow_clone().into()), ("dtype", Datum::Kind(Kind::Float))]).kind(),
            Kind::Double
        );
        for target in ["clone", "lift_fresh_copy"] {
            let copy = called(target, &[("self", mask.shallow_clone().into())]);
            assert!(
                copy.kind() == Kind::Bool && copy.equal(&mask) && copy.data_ptr() != mask.data_ptr(),
                "{target}"
            );
        }
    }

    fn numbers(tensor: &tch::Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(tch::Kind::Double).flatten(0, -1)).unwrap()
    }

    /// What masks of attention are made of.
    #[test]
    fn comparisons_and_masks_are_torchs() {
        use tch::{Kind, Tensor};
        let x = Tensor::from_slice(&[1.0, -2.0, 3.0]);
        let (ones, yes) = (x.ones_like(), Tensor::from_slice(&[true, false, false]));
        for (target, wanted) in [
            ("eq.Tensor", [1.0, 0.0, 0.0]),
            ("ne.Tensor", [0.0, 1.0, 1.0]),
            ("lt.Tensor", [0.0, 1.0, 0.0]),
            ("le.Tensor", [1.0, 1.0, 0.0]),
            ("gt.Tensor", [0.0, 0.0, 1.0]),
            ("ge.Tensor", [1.0, 0.0, 1.0]),
        ] {
            let mask = called(target, &[("self", x.shallow_clone().into()), ("other", ones.shallow_clone().into())]);
            assert_eq!((mask.kind(), numbers(&mask)), (Kind::Bool, wanted.to_vec()), "{target}");
        }
        let above = x.gt(0.0);
        for (target, wanted) in [
            ("bitwise_and.Tensor", [1.0, 0.0, 0.0]),
            ("__and__.Tensor", [1.0, 0.0, 0.0]),
            ("logical_and", [1.0, 0.0, 0.0]),
            ("bitwise_or.Tensor", [1.0, 0.0, 1.0]),
            ("__or__.Tensor", [1.0, 0.0, 1.0]),
            ("logical_or", [1.0, 0.0, 1.0]),
        ] {
            let mask = called(target, &[("self", above.shallow_clone().into()), ("other", yes.shallow_clone().into())]);
            assert_eq!((mask.kind(), numbers(&mask)), (Kind::Bool, wanted.to_vec()), "{target}");
        }
        let condition = || ("condition", Datum::from(yes.shallow_clone()));
        let float = |name, number| (name, Datum::Float(number));
        let least = called(
            "where.ScalarOther",
            &[condition(), ("self", x.shallow_clone().into()), float("other", f64::NEG_INFINITY)],
        );
        assert_eq!(numbers(&least), [1.0, f64::NEG_INFINITY, f64::NEG_INFINITY]);
        let seven = called(
            "where.ScalarSelf",
            &[condition(), float("self", 7.0), ("other", x.shallow_clone().into())],
        );
        assert_eq!(numbers(&seven), [7.0, -2.0, 3.0]);
        let both = called("where.Scalar", &[condition(), float("self", 7.0), float("other", 0.5)]);
        assert_eq!((both.kind(), numbers(&both)), (Kind::Double, vec![7.0, 0.5, 0.5]));
        // Whole numbers stay whole beside a whole one, and do not lose a fraction.
        let whole = Tensor::from_slice(&[1i64, 2, 3]);
        for (other, kind) in [(Datum::Int(9), Kind::Int64), (Datum::Float(0.5), Kind::Double)] {
            let wanted = if kind == Kind::Int64 { 9.0 } else { 0.5 };
            let found = called(
                "where.ScalarOther",
                &[condition(), ("self", whole.shallow_clone().into()), ("other", other)],
            );
            assert_eq!((found.kind(), numbers(&found)), (kind, vec![1.0, wanted, wanted]));
        }
    }

    #[test]
    fn pictures_are_resized_to_a_size_or_by_a_factor() {
        let x = tch::Tensor::arange(8, (tch::Kind::Double, tch::Device::Cpu)).reshape([1, 1, 2, 4]);
        for target in ["upsample_nearest2d.vec", "upsample_bilinear2d.vec", "upsample_bicubic2d.vec"] {
            let to = called(target, &[("input", x.shallow_clone().into()), ("output_size", Datum::Ints(vec![4, 8]))]);
            let by = called(
                target,
                &[("input", x.shallow_clone().into()), ("scale_factors", Datum::Floats(vec![2.0, 2.0]))],
            );
            assert_eq!(to.size(), [1, 1, 4, 8], "{target}");
            assert!(
                to.allclose(&by, 1e-12, 1e-12, false) && (to.mean(tch::Kind::Double).double_value(&[]) - 3.5).abs() < 0.2,
                "{target}"
            );
        }
    }

    #[test]
    fn tables_are_read_by_row_and_by_grid() {
        use tch::Tensor;
        let table = Tensor::from_slice(&[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]).reshape([3, 2]);
        let rows = called(
            "embedding",
            &[("weight", table.into()), ("indices", Tensor::from_slice(&[2i64, 0]).into())],
        );
        assert_eq!(numbers(&rows), [20.0, 21.0, 0.0, 1.0]);
        let axes = || Datum::from(vec![Tensor::from_slice(&[0i64, 1]), Tensor::from_slice(&[5i64, 6, 7])]);
        for (indexing, shape, first) in [("ij", [2, 3], [0.0, 0.0, 0.0]), ("xy", [3, 2], [0.0, 1.0, 0.0])] {
            let given = BTreeMap::from([("tensors", axes()), ("indexing", Datum::Text(indexing.into()))]);
            let args = Args::new(tch::Device::Cpu, tch::Kind::Double, given);
            let Datum::Tensors(grids) = find("meshgrid.indexing").unwrap()(&args).unwrap() else {
                panic!("{indexing}");
            };
            let grid = grids[0].as_ref().unwrap();
            assert_eq!((grid.size(), &numbers(grid)[..3]), (shape.to_vec(), &first[..]), "{indexing}");
        }
        let full = called(
            "full_like",
            &[("self", Tensor::from_slice(&[1i64, 2]).into()), ("fill_value", Datum::Int(4))],
        );
        assert_eq!((full.kind(), numbers(&full)), (tch::Kind::Int64, vec![4.0, 4.0]));
        assert_eq!(numbers(&called("scalar_tensor", &[("s", Datum::Float(0.25))])), [0.25]);
    }
}
