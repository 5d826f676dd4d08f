FACE_DESCRIPTOR_SIZE = 4
face_descriptor = visual_quality = read_action_units = None
