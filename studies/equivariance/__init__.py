"""Whether attention follows a shift, a rotation or a change of scale of the image."""
