//! A laboratory of given sources: for tests and research.

use super::{Evidence, Lab};
use crate::error::{Error, Result};
use tch::Tensor;

/// What is there.
#[derive(Default)]
pub struct KnownLab<'a> {
    /// Influence.
    pub influence: Option<&'a mut dyn Evidence>,
    /// Features of every training example.
    pub features: Option<Tensor>,
    /// Features of the pictures that are asked about.
    pub picture_features: Option<Tensor>,
    /// Features of the null pictures.
    pub null_features: Option<Tensor>,
    /// Pictures of every training example.
    pub pictures: Option<Tensor>,
}

impl<'a> KnownLab<'a> {
    /// Influence alone.
    pub fn of(influence: &'a mut dyn Evidence) -> Self {
        Self {
            influence: Some(influence),
            ..Self::default()
        }
    }
}

impl Lab for KnownLab<'_> {
    fn influence(&mut self) -> Result<&mut dyn Evidence> {
        match &mut self.influence {
            Some(influence) => Ok(&mut **influence),
            None => Err(Error::internal("no influence is known here")),
        }
    }

    fn features(&mut self, _layer: Option<&str>) -> Result<Tensor> {
        let features = self.features.as_ref().ok_or_else(|| Error::internal("no features are known here"))?;
        Ok(features.shallow_clone())
    }

    fn features_at(&mut self, layer: Option<&str>, positions: &[usize]) -> Result<Tensor> {
        let places: Vec<i64> = positions.iter().map(|&i| i as i64).collect();
        Ok(self.features(layer)?.f_index_select(0, &Tensor::f_from_slice(&places)?)?)
    }

    fn null_features(&mut self, _layer: Option<&str>) -> Result<Option<Tensor>> {
        Ok(self.null_features.as_ref().map(Tensor::shallow_clone))
    }

    fn features_of(&mut self, _layer: Option<&str>, images: &[Tensor]) -> Result<Tensor> {
        let features = self
            .picture_features
            .as_ref()
            .ok_or_else(|| Error::internal("no features of pictures are known here"))?;
        Ok(features.f_narrow(0, 0, images.len() as i64)?)
    }

    fn pictures(&mut self, positions: &[usize]) -> Result<Tensor> {
        let pictures = self.pictures.as_ref().ok_or_else(|| Error::internal("no pictures are known here"))?;
        let places: Vec<i64> = positions.iter().map(|&i| i as i64).collect();
        Ok(pictures.f_index_select(0, &Tensor::f_from_slice(&places)?)?)
    }
}
