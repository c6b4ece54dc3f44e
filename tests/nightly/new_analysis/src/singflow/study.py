from singflow.analyses.feature_norms import FeatureNorms

    feature_norms: FeatureNorms
