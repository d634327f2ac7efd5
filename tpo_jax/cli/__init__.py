"""The command `tpo`: one verb an arrow of the pipeline, one small file a verb."""
