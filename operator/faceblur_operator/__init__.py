"""The control plane: turns FaceBlurCluster resources into worker deployments."""
