//! Every tick against a search that knows neither croner nor this module.
